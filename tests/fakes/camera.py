"""What `kill -9` would leave on the disk at each moment: copies of a folder, taken before each write to it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
"""Audit events of Python that announce a change to the files."""


class Camera:
    """Copies ``folder`` into numbered folders below ``album``, each time that something has changed.

    A write is a change to the files of this process, or a commit of any database, seen just before it is made. What
    SQLite has not committed is not in its files either.
    """

    def __init__(self, folder: Path, album: Path) -> None:
        self._folder, self._album = folder, album
        self._newest: dict[str, bytes] = {}
        self._busy = False
        self.copies: list[Path] = []

    def shoot(self) -> None:
        """Copy the folder as it is now, unless it is as it was."""
        if self._busy:
            return
        self._busy = True
        try:
            seen = self._read()
            if seen != self._newest:
                copy = self._album / f"{len(self.copies):04d}"
                shutil.copytree(self._folder, copy, ignore=shutil.ignore_patterns("*-shm"))
                self._newest = seen
                self.copies.append(copy)
        finally:
            self._busy = False

    def _read(self) -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in sorted(self._folder.rglob("*"))
            if not path.name.endswith("-shm")
        }


_watching: list[Camera] = []


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and (event in CHANGES or (event == "open" and set("wax+") & set(arguments[1] or ""))):
        for camera in _watching:
            camera.shoot()


sys.addaudithook(_look)  # there is no way to take it away again


@contextmanager
def watched(folder: Path, album: Path, *, commits_alone: bool = False) -> Iterator[Camera]:
    """A camera that works until the block ends; if wanted it looks before commits alone, at whatever has changed."""
    camera = Camera(folder, album)

    def before_commit(_: Any) -> None:
        camera.shoot()

    sa.event.listen(sa.engine.Engine, "commit", before_commit)
    watching = [] if commits_alone else _watching
    watching.append(camera)
    try:
        yield camera
    finally:
        watching.remove(camera)
        sa.event.remove(sa.engine.Engine, "commit", before_commit)
