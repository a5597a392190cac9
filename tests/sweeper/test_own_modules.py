from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper import own_modules as module
from sweeper.errors import StudyError
from sweeper.own_modules import absent_modules, named_modules, own_modules
from sweeper.study import load_study

WRITTEN = {
    "my_task.py": "import os, helpers\nimport torch\nfrom trials.data import Source\n",
    "helpers.py": "def late():\n    from shapes.round import circle\n    return circle\n",
    "shapes/__init__.py": "",
    "shapes/round.py": "import my_task\nfrom . import names\n",
    "shapes/names.txt": "circle\n",
    "shapes/__pycache__/round.pyc": "compiled",
    "shapes/.hidden.py": "",
    "broken.py": "def :\n",
    "unrelated.py": "import my_task\n",
    "trials.py": "a file that happens to be called so",
    "houses.csv": "price\n1\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in WRITTEN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_all_options_of_a_study_are_looked_at(write_study: Callable[..., Path]) -> None:
    file = write_study()
    builds = "{choice: [{build: linear}, {build: my_task:net}, {build: my_nets.deep:net}]}"
    file.write_text(file.read_text().replace("{build: linear}", builds).replace("digits", "my_data:load"))
    assert named_modules(load_study(file).space) == ["my_data", "my_task", "my_nets"]


def test_what_is_imported_comes_too_and_nothing_else(folder: Path) -> None:
    found = own_modules(["my_task", "torchvision"], [folder])
    assert found == {
        name: folder / name
        for name in ("my_task.py", "helpers.py", "shapes/__init__.py", "shapes/names.txt", "shapes/round.py")
    }


def test_the_first_folder_that_has_it_wins(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for name in ("helpers.py", "only_here.py"):
        (other / name).write_text("")
    assert own_modules(["helpers", "only_here"], [other, folder]) == {
        "helpers.py": other / "helpers.py",
        "only_here.py": other / "only_here.py",
    }


def test_a_file_that_is_no_python_goes_as_it_is(folder: Path) -> None:
    assert own_modules(["broken"], [folder]) == {"broken.py": folder / "broken.py"}


def test_what_is_neither_beside_the_study_nor_installed_is_named(folder: Path) -> None:
    files = own_modules(["my_task", "shapes"], [folder])
    assert absent_modules(["my_task", "shapes", "torchvision", "no_such_module_here"], files) == ["no_such_module_here"]


@pytest.mark.parametrize(("limit", "value"), [("LIMIT_BYTES", 20), ("LIMIT_FILES", 2)])
def test_more_than_code_is_refused(folder: Path, limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(StudyError, match=r"expected code alone: what module '\w+' holds is sent to the cluster"):
        own_modules(["my_task"], [folder])
    assert own_modules(["unrelated_too"], [folder]) == {}
