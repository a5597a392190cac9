"""Every path of a study, in one place."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from sweeper.errors import StoreError, StudyError
from trials.disk import is_temporary, remove, temporary_name, write_whole

NAME = r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?$"
"""What a study may be called: the name of a folder, wherever it comes from."""


class StudyFolder:
    """The folder of one study below a home: its file, its trials, its winner.

    Raises:
        StudyError: the name is none that a study can have, such as one that leads out of the home.
    """

    def __init__(self, home: Path, name: str) -> None:
        if not re.fullmatch(NAME, name):
            raise StudyError(
                f"found {name!r} as the name of a study, expected letters, digits, '.', '_' and '-', beginning with a "
                "letter or digit and without '..'; `sweeper show` lists those there are"
            )
        self.name = name
        self.root = home / "studies" / name
        self.study_file = self.root / "study.yaml"
        """The study as it was started; workers look for it to know that they see this folder."""
        self.trials = self.root / "trials"
        self.learning_curve = self.root / "learning_curve.png"

    @property
    def place(self) -> str:
        """Where the files are, for people."""
        return str(self.root)

    @property
    def must_see(self) -> str:
        """A file that workers see if they share this folder; empty where they need not."""
        return str(self.study_file)

    def address(self, number: int) -> str:  # noqa: ARG002
        """Where the folder of a trial is kept in the store; empty without one."""
        return ""

    def begin(self, *, is_known: bool) -> None:  # noqa: ARG002
        """Make the folder.

        Args:
            is_known: whether the study has trials, whose files must be there.

        Raises:
            StoreError: they are not.
        """
        self.root.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """Raise StoreError unless the study's files can be reached."""

    def read(self, name: str) -> bytes | None:
        """What a small file of the study's own holds, if it is there."""
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file of the study's own, whole or not at all."""
        write_whole(self.root / name, content)

    def fetch(self, path: str, sha256: str) -> Path:
        """The file that the catalog names so, on this machine and with that digest.

        Raises:
            StoreError: it is missing or differs.
        """
        whole = self.file(path)
        check_digest(whole, sha256)
        return whole

    def damage(self, path: str, size_bytes: int, sha256: str) -> str | None:
        """What is wrong with a file that the catalog names so; ``None`` if it is whole.

        Raises:
            StoreError, OSError: it cannot be looked at.
        """
        whole = self.file(path)
        if not whole.is_file():
            return "in the catalog, but the file is gone"
        if (found_bytes := whole.stat().st_size) != size_bytes:
            return f"{size_bytes} bytes in the catalog, {found_bytes} on the disk"
        if (found := digest_of(whole)) != sha256:
            return f"sha256 {sha256[:12]}... in the catalog, {found[:12]}... on the disk"
        return None

    def restore(self, path: str, content: bytes) -> None:
        """Put back a file that the catalog names so."""
        write_whole(self.file(path), content)

    def is_there(self) -> bool:
        """Whether anything of the study is."""
        return self.root.is_dir()

    def remove_stray(self, path: str) -> None:
        """Remove something below the folder that nobody needs."""
        whole = self.file(path)
        if whole.exists() and not is_temporary(whole):
            # Renamed first: under its own name a checkpoint is whole.
            whole = whole.rename(temporary_name(whole))
        remove(whole)

    def bring(self, number: int) -> None:
        """Have all files of a trial that has ended on this machine."""

    def bring_model(self, place: Path) -> None:
        """Have a registered model, from which the study's trials begin, on this machine, if the study has kept it."""

    def keep_model(self, place: Path) -> None:
        """Keep such a model for all machines."""

    def trial(self, number: int) -> Path:
        """The folder of one trial; what is in it is `trials.checkpoint.TrialFolder`'s."""
        return self.trials / f"{number:04d}"

    def package(self, number: int) -> Path:
        """What `sweeper pull` copies: the winner, or a later one, each whole in a folder of its own."""
        return self.root / ("winner" if number == 1 else f"winner-{number}")

    def fetch_package(self, number: int) -> Path:
        """The folder of a winner, on this machine if it is anywhere."""
        return self.package(number)

    def keep_package(self, number: int) -> None:
        """Keep a winner's folder for all machines, before the catalog names it."""

    def remove_package(self, package: Path) -> None:
        """Remove one of `packages`."""
        shutil.rmtree(package, ignore_errors=True)

    def packages(self) -> list[Path]:
        """The folders of all winners so far, and what a process that was killed while it made one has left."""
        return sorted(path for name in ("winner*", ".winner*") for path in self.root.glob(name) if path.is_dir())

    def named(self, number: int, path: str) -> str:
        """A file of a trial as the catalog names it: relative to the study's folder.

        >>> StudyFolder(Path("/home"), "digits").named(7, "weights/ema.safetensors")
        'trials/0007/weights/ema.safetensors'
        """
        return (self.trial(number) / path).relative_to(self.root).as_posix()

    def file(self, path: str) -> Path:
        """The file that the catalog names so, the inverse of :meth:`named`.

        Raises:
            StoreError: it would lie outside of the study's folder.
        """
        whole = Path(os.path.normpath(self.root / path))
        if self.root not in whole.parents or "\0" in path:
            raise StoreError(
                f"the catalog names the file {path!r}, expected one below {self.root}; it was tampered with"
            )
        return whole

    def remove_file(self, path: str) -> None:
        """Remove a file that the catalog named so, if it is there."""
        self.file(path).unlink(missing_ok=True)

    def weights(self, number: int) -> list[Path]:
        """The files of weights that a trial has left."""
        return sorted((self.trial(number) / "weights").glob("*.safetensors"))

    def has_resume_point(self, number: int, epoch: int) -> bool:
        """Whether a trial can go on from the state after ``epoch``."""
        return (self.trial(number) / "checkpoints" / f"epoch-{epoch:04d}").is_dir()

    def remove_resume_point(self, number: int) -> None:
        """Remove what only a trial that goes on would need."""
        for name in ("checkpoints", "best"):
            whole, going = self.trial(number) / name, self.trial(number) / f".{name}.tmp"
            shutil.rmtree(going, ignore_errors=True)  # left by a process that was killed here
            with suppress(FileNotFoundError):
                # Renamed first: under its own name a checkpoint is whole.
                whole.rename(going)
                shutil.rmtree(going, ignore_errors=True)

    def resume_point_bytes(self, number: int) -> int:
        """What `remove_resume_point` would free."""
        return sum(bytes_below(self.trial(number) / name) for name in ("checkpoints", "best"))

    def used_bytes(self) -> int:
        """What the study takes on the disk; files that come and go meanwhile count as they are met."""
        return bytes_below(self.root)

    def remove_copies(self, but: Collection[int]) -> int:  # noqa: ARG002
        """Remove what of trials is only a copy here, except of those; the bytes."""
        return 0

    def pictures(self, number: int) -> list[Path]:
        """What was drawn of a trial."""
        return sorted((self.trial(number) / "pictures").glob("*.png"))

    def clear(self) -> None:
        """Remove all that the study left."""
        shutil.rmtree(self.root, ignore_errors=True)


def check_digest(path: Path, sha256: str) -> None:
    """Make sure that a file is the one the catalog knows.

    Raises:
        StoreError: it is missing or differs.
    """
    if not path.is_file():
        raise StoreError(f"{path}: the catalog names these weights, but the file is gone")
    found = digest_of(path)
    if found != sha256:
        raise StoreError(f"{path}: sha256 {found[:12]}..., expected {sha256[:12]}...: the file was changed or damaged")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_below(folder: Path | str) -> int:
    """The sizes of all files in a folder and its sub-folders; 0 if there is no such folder."""
    total = 0
    # Trials that run replace their checkpoints under our eyes: what is gone when it is looked at weighs nothing.
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += bytes_below(entry.path)
            else:
                with suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
