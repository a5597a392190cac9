import importlib
import math
import sys
from pathlib import Path

import pytest

from trials.locate import locate, one_line, own_modules


def test_finds_functions_and_attributes_of_classes() -> None:
    assert locate("math:sqrt") is math.sqrt
    assert locate("builtins:dict.fromkeys")("ab") == {"a": None, "b": None}


def test_a_wrong_name_suggests_the_nearest() -> None:
    with pytest.raises(ImportError, match=r"^math:sqr: math has no 'sqr'; did you mean 'sqrt'\?$"):
        locate("math:sqr")


def test_a_missing_module_is_one_line() -> None:
    with pytest.raises(ImportError, match=r"^nowhere_at_all:x: module nowhere_at_all cannot be imported \(Mod.*\)$"):
        locate("nowhere_at_all:x")


def test_a_module_that_fails_on_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locate_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=r"ZeroDivisionError: division by zero"):
        locate("locate_broken:x")


def test_modules_of_a_folder_go_before_others_of_their_names_and_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, value in (("theirs", 1), ("first", 2), ("second", 3)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "locate_of_several.py").write_text(f"value = {value}\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(str(tmp_path / "theirs"))
    path = list(sys.path)
    known = importlib.import_module("locate_of_several")
    for folder, value in (("first", 2), ("second", 3), ("absent", 1)):
        with own_modules(tmp_path / folder):
            assert locate("locate_of_several:value") == value
        assert sys.modules["locate_of_several"] is known
        assert sys.path == path
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["locate_of_several.py"]
    assert not sys.dont_write_bytecode


def test_one_line_joins_and_cuts() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError("x" * 20), limit=10) == "xxxxxxx..."
