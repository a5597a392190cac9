"""Which files a folder in the store consists of: one small object, put after they are there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field, ValidationError, field_validator

from sweeper.store.store import Absent, Store
from trials.manifest import Damaged, sealed, unsealed
from trials.result import Record

_NAME = re.compile(r"index-(\d{8,})\.json")
_READ_AGAIN = 5
"""How often an index may be replaced between being listed and being read."""


class StoredFile(Record):
    """One whole file."""

    bytes: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Index(Record):
    """The files of a folder as one of its owners has left them."""

    attempt: int = 0
    """How often somebody has taken the folder, to train in it or to remove some of it."""
    owner: str = ""
    """Who did, a random name."""
    is_first: bool = False
    """Whether it is the first of its owner: it stays for good."""
    epoch: int = 0
    """Of a trial: the newest that is saved here."""
    files: dict[str, StoredFile] = Field(default_factory=dict)
    """By their paths in the folder."""

    @field_validator("files")
    @classmethod
    def _lie_in_the_folder(cls, files: dict[str, StoredFile]) -> dict[str, StoredFile]:
        for path in files:
            parts = PurePosixPath(path).parts
            if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
                raise ValueError(f"{path!r} lies outside of the folder")
        return files

    def content(self) -> bytes:
        """As an object."""
        return sealed(self.model_dump())

    @classmethod
    def of(cls, content: bytes, name: str) -> Index:
        """The inverse of :meth:`content`. Raises :class:`Damaged`."""
        found: dict[str, Any] = unsealed(content, name)
        try:
            return cls.model_validate_json(json.dumps(found))
        except ValidationError as error:
            raise Damaged(name, "no index of files") from error


def index_name(folder: str, generation: int) -> str:
    """
    >>> index_name("trials/0007", 12)
    'trials/0007/index-00000012.json'
    """
    return f"{folder}/index-{generation:08d}.json"


def file_name(folder: str, sha256: str) -> str:
    """
    >>> file_name("trials/0007", "9f86")
    'trials/0007/files/9f86'
    """
    return f"{folder}/files/{sha256}"


def generations(folder: str, names: Mapping[str, int]) -> list[int]:
    """The numbers of the indexes of a folder among names in the store, the newest first."""
    inside = (name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/"))
    return sorted((int(found[1]) for name in inside if (found := _NAME.fullmatch(name))), reverse=True)


@dataclass(frozen=True)
class Newest:
    """What lies in a folder of the store."""

    generation: int
    """Number of its newest index; 0 if there is none."""
    index: Index
    """The newest that is whole."""
    names: Mapping[str, int]
    """Bytes of each object in the folder, by its name in the store."""
    damaged: str = ""
    """The name of the newest index, if it is not whole."""


def read_newest(store: Store, folder: str) -> Newest:
    """What lies in a folder of the store. An index that is damaged gives way to the one before, if that is there.

    Raises:
        StoreError: the store cannot be read.
    """
    for _ in range(_READ_AGAIN):
        names = store.sizes(folder)
        known = generations(folder, names)
        try:
            index, damaged = _newest_whole(store, folder, known)
        except Absent:  # its owner has put another since
            continue
        return Newest(known[0] if known else 0, index, names, damaged)
    raise Absent(f"{store.address}/{folder}: its index is replaced faster than it can be read")


def _newest_whole(store: Store, folder: str, known: list[int]) -> tuple[Index, str]:
    damaged = ""
    for generation in known:
        name = index_name(folder, generation)
        content = store.read(name)
        try:
            return Index.of(content, f"{store.address}/{name}"), damaged
        except Damaged:
            damaged = damaged or name
    return Index(), damaged
