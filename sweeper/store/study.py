"""The folder of a study whose files are in the store; what lies below the home is what was brought from there."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path, PurePosixPath

from sweeper.errors import StoreError
from sweeper.store.address import VARIABLE
from sweeper.store.index import Index, file_name, read_newest
from sweeper.store.mirror import Mirror, bring
from sweeper.store.store import Absent, Store
from sweeper.study_folder import StudyFolder, bytes_below
from trials.disk import entries
from trials.manifest import Damaged

RESUME_POINT = ("checkpoints", "best")
"""What only a trial that goes on needs."""


class StoredStudyFolder(StudyFolder):
    """As `StudyFolder`, for a study in the store.

    Args:
        home: below which files are brought.
        name: of the study.
        store: where the studies are.
    """

    def __init__(self, home: Path, name: str, store: Store) -> None:
        super().__init__(home, name)
        self._store, self._there = store, f"studies/{name}"
        self._token: str | None = None
        self._done: set[int] = set()
        """Trials of which nothing is left to go on from, as far as nobody trains them again."""

    @property
    def place(self) -> str:
        return f"{self._store.address}/{self._there}"

    @property
    def must_see(self) -> str:
        return ""

    def address(self, number: int) -> str:
        self._done.discard(number)
        return f"{self._store.address}/{self._trial(number)}"

    def begin(self, *, is_known: bool) -> None:
        super().begin(is_known=is_known)
        if self._find() is None and is_known:
            raise self._is_unknown()
        if self._token is None:
            token = uuid.uuid4().hex[:12]
            self._store.create(f"{self._there}/begun.json", json.dumps({"folder": token}).encode())
            self._token = token

    def check(self) -> None:
        with suppress(Absent):
            self._store.read(f"{self._there}/begun.json")

    def read(self, name: str) -> bytes | None:
        try:
            return self._store.read(f"{self._prefix}/{name}")
        except Absent:
            return None

    def write(self, name: str, content: bytes) -> None:
        self._store.write(f"{self._prefix}/{name}", content)

    def fetch(self, path: str, sha256: str) -> Path:
        here = self.file(path)
        trial = "/".join(PurePosixPath(path).parts[:2])
        try:
            bring(self._store, file_name(f"{self._prefix}/{trial}", sha256), here, sha256)
        except Absent as error:
            raise StoreError(f"{path}: the catalog names these weights, but {error}") from error
        except Damaged as damage:
            raise StoreError(f"{path}: {damage.found} in {self._store.address}: it was changed or damaged") from damage
        return here

    def damage(self, path: str, size_bytes: int, sha256: str) -> str | None:
        number, inside = _split(path)
        file = self._look(number).files.get(inside)
        if file is None:
            return "in the catalog, but the store has no such file"
        if (file.bytes, file.sha256) != (size_bytes, sha256):
            return f"sha256 {sha256[:12]}... in the catalog, {file.sha256[:12]}... in the store"
        with tempfile.TemporaryDirectory() as temporary:
            try:
                self._store.fetch(file_name(self._trial(number), sha256), Path(temporary) / "file", sha256)
            except Absent:
                return "in the catalog, but the file is gone from the store"
            except Damaged as damage:
                return f"damaged in the store ({damage.found})"
        return None

    def restore(self, path: str, content: bytes) -> None:
        number, _ = _split(path)
        self.bring(number)
        super().restore(path, content)
        # What lies there under its digest is damaged, and is not looked at again when it is sent.
        self._store.write(file_name(self._trial(number), hashlib.sha256(content).hexdigest()), content)
        self._keep(self._trial(number), self.trial(number))

    def is_there(self) -> bool:
        return self._find() is not None

    def trials_there(self) -> list[int]:
        """The numbers of the trials of which the store has anything."""
        there = f"{self._prefix}/trials"
        names = {name.removeprefix(f"{there}/").partition("/")[0] for name in self._store.sizes(there)}
        return sorted(int(name) for name in names if name.isdecimal())

    def files_there(self, number: int) -> tuple[list[Path], list[str]]:
        """The files of a trial in the store; and objects beside them that no index names, such as ``files/9f86``."""
        newest = read_newest(self._store, self._trial(number))
        named = {file_name(self._trial(number), file.sha256) for file in newest.index.files.values()}
        objects = file_name(self._trial(number), "")
        unnamed = sorted(name for name in newest.names if name.startswith(objects) and name not in named)
        files = sorted(self.trial(number) / path for path in newest.index.files)
        return files, [name.removeprefix(f"{self._trial(number)}/") for name in unnamed]

    def remove_stray(self, path: str) -> None:
        whole = self.file(path)
        if whole in self.packages():
            self.remove_package(whole)
            return
        number, inside = _split(path)
        if inside in RESUME_POINT:
            self.remove_resume_point(number)
        elif inside.startswith("files/"):
            self._store.remove([f"{self._trial(number)}/{inside}"])
        elif inside:
            self.remove_file(path)
        else:
            self._store.remove(self._store.sizes(self._trial(number)))
            shutil.rmtree(whole, ignore_errors=True)

    def bring(self, number: int) -> None:
        self._bring(self._trial(number), self.trial(number))

    def bring_model(self, place: Path) -> None:
        self._bring(f"{self._prefix}/pretrained/{place.name}", place)

    def keep_model(self, place: Path) -> None:
        self._keep(f"{self._prefix}/pretrained/{place.name}", place)

    def weights(self, number: int) -> list[Path]:
        return self._files(number, "weights")

    def pictures(self, number: int) -> list[Path]:
        listed = self._files(number, "pictures")
        if not all(path.is_file() for path in listed):
            self.bring(number)
        return [path for path in listed if path.is_file()]

    def has_resume_point(self, number: int, epoch: int) -> bool:
        return bool(self._files(number, "checkpoints", f"epoch-{epoch:04d}"))

    def remove_resume_point(self, number: int) -> None:
        super().remove_resume_point(number)
        if number not in self._done:
            self._drop(number, lambda path: PurePosixPath(path).parts[0] in RESUME_POINT)
            self._done.add(number)

    def resume_point_bytes(self, number: int) -> int:
        files = self._look(number).files
        kept = {file.sha256 for path, file in files.items() if PurePosixPath(path).parts[0] not in RESUME_POINT}
        return sum({file.sha256: file.bytes for file in files.values() if file.sha256 not in kept}.values())

    def remove_file(self, path: str) -> None:
        super().remove_file(path)
        number, inside = _split(path)
        self._drop(number, lambda one: one == inside)

    def used_bytes(self) -> int:
        return 0 if self._find() is None else sum(self._store.sizes(self._prefix).values())

    def remove_copies(self, but: Collection[int]) -> int:
        before_bytes = bytes_below(self.trials)
        for path in entries(self.trials):
            if path.name not in {self.trial(number).name for number in but}:
                shutil.rmtree(path, ignore_errors=True)
        return before_bytes - bytes_below(self.trials)

    def packages(self) -> list[Path]:
        there = f"{self._prefix}/winners"
        numbers = {int(name.removeprefix(f"{there}/").partition("/")[0]) for name in self._store.sizes(there)}
        return sorted({*super().packages(), *map(self.package, numbers)})

    def fetch_package(self, number: int) -> Path:
        package = self.package(number)
        self._bring(self._winner(package), package)
        return package

    def keep_package(self, number: int) -> None:
        self._keep(self._winner(self.package(number)), self.package(number))

    def remove_package(self, package: Path) -> None:
        super().remove_package(package)
        if not package.name.startswith("."):
            self._store.remove(self._store.sizes(self._winner(package)))

    def clear(self) -> None:
        if self._find() is not None:
            # First, so that a worker which knows nothing of it writes to where nobody looks.
            self._store.remove([f"{self._there}/begun.json"])
            self._store.remove(self._store.sizes(self._there))
        self._token = None
        self._done.clear()
        super().clear()

    @property
    def _prefix(self) -> str:
        """Where the study's files are in the store."""
        token = self._find()
        if token is None:
            raise self._is_unknown()
        return f"{self._there}/{token}"

    def _find(self) -> str | None:
        """The name that its files are below, if there are any."""
        if self._token is None:
            with suppress(Absent):
                self._token = str(json.loads(self._store.read(f"{self._there}/begun.json"))["folder"])
        return self._token

    def _is_unknown(self) -> StoreError:
        return StoreError(
            f"{VARIABLE}={self._store.address}: holds nothing of study {self.name!r}, which was begun with another "
            f"store or with none; set {VARIABLE} as it was then, or unset it"
        )

    def _trial(self, number: int) -> str:
        return f"{self._prefix}/trials/{self.trial(number).name}"

    def _winner(self, package: Path) -> str:
        return f"{self._prefix}/winners/{package.name.partition('-')[2] or 1}"

    def _look(self, number: int) -> Index:
        return Mirror(self._store, self._trial(number), self.trial(number)).look()

    def _files(self, number: int, *parts: str) -> list[Path]:
        """What the store has of a trial below one of its folders."""
        found = (PurePosixPath(path) for path in self._look(number).files)
        return sorted(self.trial(number) / path for path in found if path.parts[: len(parts)] == parts)

    def _drop(self, number: int, is_dropped: Callable[[str], bool]) -> None:
        mirror = Mirror(self._store, self._trial(number), self.trial(number))
        if any(map(is_dropped, mirror.look().files)):
            mirror.take(lambda path: not is_dropped(path))

    def _bring(self, there: str, here: Path) -> None:
        mirror = Mirror(self._store, there, here)
        mirror.look()
        mirror.pull()

    def _keep(self, there: str, here: Path) -> None:
        mirror = Mirror(self._store, there, here)
        mirror.take()
        mirror.push(mirror.index.epoch)


def _split(path: str) -> tuple[int, str]:
    """
    >>> _split("trials/0007/weights/raw.safetensors")
    (7, 'weights/raw.safetensors')
    """
    _, number, *inside = PurePosixPath(path).parts
    return int(number), "/".join(inside)
