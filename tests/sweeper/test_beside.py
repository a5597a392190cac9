from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.beside import folder_beside
from sweeper.errors import StoreError

KILLED = """
import os, signal, sys
from pathlib import Path
from sweeper.beside import folder_beside
with folder_beside(Path(sys.argv[1])) as folder:
    (folder / "half").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_lies_beside_and_is_gone_in_the_end(tmp_path: Path) -> None:
    out = tmp_path / "new" / "best"
    with folder_beside(out) as folder:
        assert folder.parent == out.parent
        assert folder.is_dir()
        (folder / "package").mkdir()
        (folder / "package").replace(out)
    assert names(out.parent) == ["best"]

    def fail() -> None:
        with folder_beside(out) as folder:
            (folder / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(out.parent) == ["best"]


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_or_of_others_is_not(tmp_path: Path) -> None:
    out = tmp_path / "be[s]t"  # brackets are no pattern
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "half").is_dir()
    mine = [".be[s]t.mine", ".bes.x.partial", ".best.x.partial"]
    for name in mine:
        (tmp_path / name).mkdir()
    with folder_beside(out) as first:
        assert not left.exists()
        with folder_beside(out) as second:
            assert first.is_dir()
            assert second.is_dir()
        assert names(tmp_path) == sorted([first.name, *mine])
    assert names(tmp_path) == sorted(mine)


def test_where_it_cannot_lie_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "best"
    with pytest.raises(StoreError, match=rf"^{out}: cannot be written, {out.parent} is no folder; choose another"):
        folder_beside(out).__enter__()
    assert names(tmp_path) == ["file"]
