"""A folder here and its copy in the store, by its index: taken, brought here, sent there.

Whoever works on a folder takes it first, with an index of his own under the next number; that one stays for good.
Indexes are only ever made, never replaced, so that an owner who was believed dead finds the next number in use, however
late he comes, and changes nothing any more.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from sweeper.errors import StoreError
from sweeper.store.index import Index, Newest, StoredFile, file_name, index_name, read_newest
from sweeper.store.store import Absent, Store, Taken
from sweeper.study_folder import digest_of
from trials.disk import is_temporary, remove, temporary_for
from trials.manifest import Damaged, verify

LOCK = ".lock"
"""Of a folder here; it means nothing elsewhere."""
_TAKE_AGAIN = 5
"""How often somebody else may put an index while a folder is being taken."""


class Superseded(StoreError):
    """Somebody else has taken the folder since. Whoever is meant to have it may take it back."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=True)


class Mirror:
    """One folder of the store, and the same here.

    Args:
        store: where it lies.
        name: of the folder there.
        folder: its copy here, of which nothing counts that the store does not have.
    """

    def __init__(self, store: Store, name: str, folder: Path) -> None:
        self._store, self._name, self._folder = store, name, folder
        self._owner = uuid.uuid4().hex
        self._generation = 0
        self._index = Index()
        self._held: set[str] = set()
        """Digests of files that lie there whole."""
        self._digests: dict[Path, tuple[tuple[int, int, int], str]] = {}

    @property
    def index(self) -> Index:
        """As this owner has left it."""
        return self._index

    def take(self, is_kept: Callable[[str], bool] = lambda _: True) -> list[str]:
        """Become the owner: whoever was, can change nothing any more. What was found damaged, in lines.

        Args:
            is_kept: by its path, whether a file stays there; the others are removed there, not here.

        Raises:
            StoreError: the store cannot be read or written.
        """
        for _ in range(_TAKE_AGAIN):
            newest = read_newest(self._store, self._name)
            mine = Index(
                attempt=newest.index.attempt + 1,
                owner=self._owner,
                is_first=True,
                epoch=newest.index.epoch,
                files={path: file for path, file in newest.index.files.items() if is_kept(path)},
            )
            try:
                self._put(mine, newest.generation + 1)
            except Superseded:
                continue
            self._held = {file.sha256 for file in mine.files.values()}
            self._remove_leftovers(newest)
            return [f"{newest.damaged} was damaged: set aside"] if newest.damaged else []
        raise Superseded(f"{self._store.address}/{self._name}: taken by others again and again")

    def look(self) -> Index:
        """Read the index as whoever owns the folder has left it; to look changes nothing.

        Raises:
            StoreError: the store cannot be read.
        """
        newest = read_newest(self._store, self._name)
        self._generation, self._index = newest.generation, newest.index
        return self._index

    def pull(self) -> list[str]:
        """Make the folder here what the index says. What cannot be had whole is left out, and told in lines.

        Raises:
            StoreError: the store cannot be read.
            NoSpace: the disk here is full.
        """
        wanted, notes = self._index.files, []
        _remove_others(self._folder, {self._folder / path for path in wanted})
        for path, file in sorted(wanted.items()):
            here = self._folder / path
            try:
                bring(self._store, file_name(self._name, file.sha256), here, file.sha256)
            except (Absent, Damaged) as damage:
                remove(here)
                self._held.discard(file.sha256)
                found = damage.found if isinstance(damage, Damaged) else "it is gone"
                notes.append(f"{path} was damaged in the store ({found}): set aside")
        return notes

    def push(self, epoch: int = 0) -> None:
        """Make the store have what is here: first the files that it has not, then the index; then old files go.

        Raises:
            Superseded: somebody else has taken the folder; nothing of his was changed.
            StoreError: the store cannot be written; it then has what it had.
        """
        files = {}
        for path in _files_below(self._folder):
            sha256 = self._digest(path)
            files[path.relative_to(self._folder).as_posix()] = StoredFile(bytes=path.stat().st_size, sha256=sha256)
            if sha256 not in self._held:
                self._store.send(path, file_name(self._name, sha256))
                self._held.add(sha256)
        before, generation = self._index, self._generation
        if (before.epoch, before.files) == (epoch, files):
            return
        self._put(before.model_copy(update={"is_first": False, "epoch": epoch, "files": files}), generation + 1)
        needed = {file.sha256 for file in files.values()}
        gone = {file.sha256 for file in before.files.values()} - needed
        self._held &= needed
        old = [] if before.is_first else [index_name(self._name, generation)]
        self._store.remove([*old, *(file_name(self._name, sha256) for sha256 in sorted(gone))])

    def _put(self, index: Index, generation: int) -> None:
        name = index_name(self._name, generation)
        try:
            self._store.create(name, index.content())
        except Taken as error:
            raise Superseded(
                f"{self._store.address}/{self._name}: another process has taken it since; this one stops"
            ) from error
        self._index, self._generation = index, generation

    def _remove_leftovers(self, newest: Newest) -> None:
        """Remove what is not kept, what somebody sent who was killed before his index followed, and his last index."""
        prefix = file_name(self._name, "")
        named = {file_name(self._name, sha256) for sha256 in self._held}
        files = [name for name in newest.names if name.startswith(prefix) and name not in named]
        is_last = newest.generation and not newest.index.is_first and not newest.damaged
        old = [index_name(self._name, newest.generation)] if is_last else []
        self._store.remove([*old, *files])

    def _digest(self, path: Path) -> str:
        """That of a file here, which is read only if it is another than it was."""
        found = path.stat()
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._digests.get(path)
        if known is None or known[0] != seen:
            known = self._digests[path] = (seen, digest_of(path))
        return known[1]


def bring(store: Store, name: str, path: Path, sha256: str) -> None:
    """Have an object here as a file: fetched unless it is here already, and whole.

    Raises:
        Absent: it is gone.
        Damaged: it is not what was put there.
        StoreError: the store cannot be read.
        NoSpace: the disk here is full.
    """
    with suppress(Damaged):
        verify(path, sha256)
        return
    with temporary_for(path) as temporary:
        try:
            store.fetch(name, temporary, sha256)
            temporary.replace(path)
        finally:
            remove(temporary)


def _remove_others(folder: Path, kept: Collection[Path]) -> None:
    """Remove all files but those, and the folders that are empty then: one without files would look like damage."""
    for path in _files_below(folder):
        if path not in kept:
            remove(path)
    for root, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            Path(root).rmdir()


def _files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and its sub-folders, but the lock and what is half written."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_temporary(Path(name)))
        for path in (Path(root) / name for name in sorted(names)):
            if path.name != LOCK and not is_temporary(path):
                yield path
