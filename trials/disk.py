"""Files that are whole or not there: written under a temporary name (``.name.tmp``), synced, and renamed.

A kill leaves at most something under a temporary name, which the next owner removes; a full disk not even that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trials.errors import NoSpace

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader, or a crash, meets the old file or the new one, never a part.

    Raises :class:`NoSpace` when the disk is full; the old file then is as it was.
    """
    with temporary_for(path) as temporary:
        write(temporary, content)
        temporary.replace(path)
        sync(path.parent)


@contextlib.contextmanager
def temporary_for(path: Path) -> Iterator[Path]:
    """The temporary name of ``path``, in a folder that is there; what failed to be written under it goes.

    Raises :class:`NoSpace` when the disk is full.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        with contextlib.suppress(OSError):
            remove(temporary)
        if error.errno in _FULL:
            raise NoSpace(_no_space(path)) from error
        raise


@contextlib.contextmanager
def named_no_space(folder: Path) -> Iterator[None]:
    """Raise :class:`NoSpace` for a full disk that whatever runs inside meets; it writes to ``folder``, if unnamed."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(_no_space(Path(error.filename or folder))) from error
        raise


def _no_space(path: Path) -> str:
    return (
        f"{path}: no space left on the disk, or in its quota; nothing saved before is lost; make room, then start again"
    )


def write(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` down to the disk, under a name that nobody reads yet."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Bring the names in ``folder`` down to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_name(path: Path) -> Path:
    """What ``path`` is called while it is not whole yet, or no more."""
    return path.with_name(f".{path.name}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether it is under a temporary name."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def entries(folder: Path) -> list[Path]:
    """What is in ``folder``, by name; nothing if it is not there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
