"""A folder to work in beside the one that is made, which so is there only when it is whole."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sweeper.errors import StoreError

SUFFIX = ".partial"
"""By which such a folder is known."""


@contextlib.contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """A new folder ``.OUT.*.partial`` beside ``out``, gone in the end; what is made in it is then moved to ``out``.

    What processes that were killed have left there is removed: a folder that is in use is locked by whoever uses it.

    Raises:
        StoreError: there is no folder for it that can be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder, handle = _locked_folder(out)
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        why = "is no folder" if isinstance(error, FileExistsError | NotADirectoryError) else f"({error.strerror})"
        raise StoreError(f"{out}: cannot be written, {out.parent} {why}; choose another folder") from error
    for left in out.parent.glob(f".{glob.escape(out.name)}.*{SUFFIX}"):
        if left != folder:
            _remove_if_left(left)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _locked_folder(out: Path) -> tuple[Path, int]:
    """A new folder, and the handle that locks it."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=SUFFIX))
        # Before it was locked, another process may have thought that it was left.
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks, where nothing that was left is removed
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.exists():
                return folder, handle
            os.close(handle)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder unless somebody holds its lock."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
