from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sweeper.user_code import make_importable, module_files


def recipe(build: str, source: str) -> dict[str, Any]:
    return {"model": {"build": build}, "data": {"source": source}}


def test_single_files_of_the_user_are_found_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my_single_model", "my_single_data"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    both = [tmp_path / "my_single_model.py", tmp_path / "my_single_data.py"]
    assert module_files(recipe("my_single_model:build", "my_single_data:load")) == both
    assert module_files(recipe("my_single_model:build", "my_single_model:load")) == both[:1]


def test_the_members_of_an_ensemble_bring_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my_first_model", "my_second_model"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    members = [{"recipe": recipe(f"my_{name}_model:build", "digits")} for name in ("first", "second")]
    ensemble = recipe("my_first_model:build", "digits") | {"assembly": {"members": members}}
    assert module_files(ensemble) == [tmp_path / "my_first_model.py", tmp_path / "my_second_model.py"]
    assert module_files(recipe("my_first_model:build", "digits") | {"assembly": None}) == [
        tmp_path / "my_first_model.py"
    ]


def test_packages_and_what_is_installed_are_left_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package").mkdir()
    for name in ("my_package/__init__.py", "my_package/model.py", "npz.py", "digits.py"):
        (tmp_path / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    for build, source in (
        ("my_package:build", "my_package.model:load"),
        ("torchvision.models:resnet18", "npz:arrays.npz"),
        ("six:wraps", "csv:reader"),
        ("linear", "digits"),
        ("no_such_module_here:build", "digits"),
    ):
        assert module_files(recipe(build, source)) == []


def test_folders_come_first_in_their_order_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/there", "/last"])
    make_importable(["/one", "/there", "/two", "/one"])
    assert sys.path == ["/one", "/two", "/there", "/last"]
