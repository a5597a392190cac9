"""By what a file is known to be what was written: a digest, kept in another file that was written after it.

A file that is not is :class:`Damaged`: cut short, changed, or made by somebody else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trials.errors import TrialError
from trials.result import Record

MANIFEST = "manifest.json"


class Damaged(TrialError):
    """A file is not what was written."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(f"{path}: damaged ({found}); start the trial again, which trains anew what was lost")
        self.path = Path(path)
        self.found = found

    def __reduce__(self) -> tuple[type[Damaged], tuple[Path, str]]:
        return type(self), (self.path, self.found)


class Manifest(Record):
    """The digest (SHA-256) of each file of a checkpoint, by its name."""

    files: dict[str, str]
    """In the folder of the checkpoint itself."""
    best: dict[str, str]
    """Weights of the best epochs so far that it needs, in ``best/``."""

    @classmethod
    def read(cls, checkpoint: Path) -> Manifest:
        """The manifest of the checkpoint in a folder. Raises :class:`Damaged`."""
        path = checkpoint / MANIFEST
        try:
            return cls.model_validate(read_sealed(path))
        except ValidationError as error:
            raise Damaged(path, "not a manifest") from error


def digest(content: bytes | memoryview) -> str:
    """The SHA-256 of ``content``, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_verified(path: Path, expected: str) -> bytes:
    """What is in a file. Raises :class:`Damaged` unless its digest is ``expected``."""
    content = _content(path)
    if digest(content) != expected:
        raise Damaged(path, "its digest is not that of what was written")
    return content


def verify(path: Path, expected: str) -> None:
    """Raise :class:`Damaged` unless the digest of the file is ``expected``."""
    if not path.is_file():
        raise Damaged(path, "it is gone")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise Damaged(path, "its digest is not that of what was written")


def verify_checkpoint(checkpoint: Path, best: Path) -> None:
    """Raise :class:`Damaged` unless all files of a checkpoint, and those that it needs in ``best``, are as written."""
    manifest = Manifest.read(checkpoint)
    for folder, digests in ((checkpoint, manifest.files), (best, manifest.best)):
        for name, expected in digests.items():
            verify(folder / name, expected)


def sealed(content: dict[str, Any]) -> bytes:
    """JSON together with its own digest."""
    return json.dumps({"content": content, "sha256": _digest_of_json(content)}, indent=2).encode()


def read_sealed(path: Path) -> dict[str, Any]:
    """What a file holds that :func:`sealed` made. Raises :class:`Damaged`."""
    return unsealed(_content(path), path)


def unsealed(found: bytes, name: Path | str) -> dict[str, Any]:
    """The inverse of :func:`sealed`. Raises :class:`Damaged`, which calls it ``name``."""
    try:
        record = json.loads(found)
        content: dict[str, Any] = record["content"]
        intact = record["sha256"] == _digest_of_json(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(name, "not what a trial writes") from error
    if not intact:
        raise Damaged(name, "its digest is not that of what was written")
    return content


def _digest_of_json(content: Any) -> str:
    return digest(json.dumps(content, sort_keys=True).encode())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(path, "it is gone") from error
