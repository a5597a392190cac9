"""Where objects lie: in whatever fsspec reaches, or in a folder. Each is there whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from trials.disk import sync, temporary_for, write

CONNECT_SECONDS, READ_SECONDS = 10, 60
OPTIONS: dict[str, dict[str, Any]] = {
    # Tried again by the store, which says so in the end; the library's own attempts would only add to the wait.
    "s3": {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"max_attempts": 0},
        }
    }
}
"""What the libraries are told, by protocol; all else they read from the environment."""


class Objects(Protocol):
    """Objects below one address, by names with slashes. Raises whatever the library or the system does."""

    def read(self, name: str) -> bytes:
        """All of an object. Raises FileNotFoundError if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Put an object in place of whatever is there."""

    def create(self, name: str, content: bytes) -> None:
        """Put an object where there is none. Raises FileExistsError, also for one of two that try at once."""

    def send(self, path: Path, name: str) -> None:
        """Put a file as an object."""

    def fetch(self, name: str, path: Path) -> None:
        """Write an object to a file that nobody reads yet. Raises FileNotFoundError if there is none."""

    def sizes(self, below: str) -> dict[str, int]:
        """Bytes of each object whose name begins with ``below/``."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, as far as they are there."""


class OverFsspec:
    """Objects of one protocol.

    Args:
        address: as s3://bucket/prefix.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        protocol, _, self._root = address.partition("://")
        self._files = fsspec.filesystem(protocol, use_listings_cache=False, **OPTIONS.get(protocol, {}))

    def read(self, name: str) -> bytes:
        content: bytes = self._files.cat_file(self._path(name))
        return content

    def write(self, name: str, content: bytes) -> None:
        self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> None:
        # A server that does not know If-None-Match would replace it: for those, to look leaves but the moment between.
        if self._files.exists(self._path(name)):
            raise FileExistsError(name)
        try:
            self._files.pipe_file(self._path(name), content, mode="create")
        except OSError as error:
            # s3fs knows it only by words that AWS adds, and others do not.
            said = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if said in ("PreconditionFailed", "412"):
                raise FileExistsError(name) from error
            raise

    def send(self, path: Path, name: str) -> None:
        self._files.put_file(str(path), self._path(name))

    def fetch(self, name: str, path: Path) -> None:
        self._files.get_file(self._path(name), str(path))

    def sizes(self, below: str) -> dict[str, int]:
        # What is cached of a listing would hide what others have put since.
        self._files.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._files.find(self._path(below), detail=True)
        root = self._root.strip("/") + "/"
        return {path.strip("/").removeprefix(root): int(entry["size"]) for path, entry in found.items()}

    def remove(self, names: Iterable[str]) -> None:
        paths = [self._path(name) for name in names]
        try:
            self._files.rm(paths)
        except FileNotFoundError:  # one of them: the library goes no further then
            for path in paths:
                with suppress(FileNotFoundError):
                    self._files.rm_file(path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class OnDisk:
    """Objects in a folder, such as one that machines share.

    Args:
        root: need not be there yet.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        with temporary_for(path) as temporary:
            write(temporary, content)
            temporary.replace(path)
            sync(path.parent)

    def create(self, name: str, content: bytes) -> None:
        path = self._path(name)
        # Of its process alone: a link is made only where there is none, a rename would replace what another made.
        with temporary_for(path.with_name(f"{path.name}.{os.getpid()}")) as temporary:
            write(temporary, content)
            try:
                os.link(temporary, path)
            finally:
                temporary.unlink()
            sync(path.parent)

    def send(self, path: Path, name: str) -> None:
        self.write(name, path.read_bytes())

    def fetch(self, name: str, path: Path) -> None:
        path.write_bytes(self._path(name).read_bytes())

    def sizes(self, below: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, _, names in os.walk(self._path(below)):
            for path in (Path(folder) / name for name in names):
                with suppress(FileNotFoundError):
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return found

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._path(name)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # one that is not empty
                for folder in path.parents[: len(PurePosixPath(name).parts) - 1]:
                    folder.rmdir()

    def _path(self, name: str) -> Path:
        return self._root / name


def open_objects(address: str) -> Objects:
    """The objects at an address that `check_address` has seen."""
    protocol, _, place = address.partition("://")
    return OnDisk(Path(place)) if protocol == "file" else OverFsspec(address)
