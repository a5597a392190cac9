import math
from pathlib import Path

import pytest

from trials.locate import locate, one_line


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


def test_one_line_joins_and_cuts() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError("x" * 20), limit=10) == "xxxxxxx..."
