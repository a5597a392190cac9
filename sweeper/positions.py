"""Where things stand in a YAML file, and what is wrong there.

A *path* is the way from the root of the file to a value: ``("train", "optimizer", "choice", 0, "lr")``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """A place in a text file, both counted from 1."""

    line: int
    column: int


class Fault(NamedTuple):
    """One thing that is wrong; faults sort by where they stand."""

    position: Position
    path: str
    message: str

    def line(self, file: str) -> str:
        """``file:line:column: dotted.path: message``."""
        place = f"{file}:{self.position.line}:{self.position.column}"
        return ": ".join(part for part in (place, self.path, self.message) if part)


@dataclass(frozen=True)
class Document:
    """A YAML file as plain data, with the position of every key and every value."""

    data: Any
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def value(self, path: Path) -> Any:
        """What stands at ``path``. Raises KeyError, IndexError or TypeError if nothing does."""
        value = self.data
        for step in path:
            value = value[step]
        return value

    def position(self, path: Path) -> Position:
        """Where the value at ``path`` begins, or the nearest section around it that is in the file."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Position(1, 1))

    def fault(self, path: Path, message: str) -> Fault:
        """A fault of the value at ``path``."""
        return Fault(self.position(path), dotted(path), message)

    def key_fault(self, path: Path, message: str) -> Fault:
        """A fault of the last key of ``path``."""
        return Fault(self.keys.get(path) or self.position(path), dotted(path), message)


def dotted(path: Path) -> str:
    """A path as people write it.

    >>> dotted(("train", "optimizer", "choice", 0, "lr"))
    'train.optimizer.choice[0].lr'
    """
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def show(value: Any, longest: int = 80) -> str:
    """A value as YAML would write it on one line, cut when long.

    >>> show({"log": [1e-4, 0.1], "on": True})
    '{log: [0.0001, 0.1], on: true}'
    """
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    elif isinstance(value, str):
        text = repr(value)
    else:
        text = json.dumps(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def near(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known name nearest to a wrong one, or those that have it for one of their words.

    >>> near("epoch", ["epochs", "batch_size"])
    "; did you mean 'epochs'?"
    >>> near("flip", ["random_crop", "horizontal_flip", "vertical_flip"])
    "; did you mean 'horizontal_flip' or 'vertical_flip'?"
    >>> near("unknown", ["epochs"])
    ''
    """
    names = list(known)
    matches = get_close_matches(name, names, n=1) or [other for other in names if name in other.split("_")]
    return f"; did you mean {listed(map(repr, matches))}?" if matches else ""


def unknown(name: str, known: Iterable[str], what: str = "key") -> str:
    """The message for a name that is not among the known ones.

    >>> unknown("epoch", ["epochs", "batch_size"])
    "found unknown key 'epoch', expected epochs or batch_size; did you mean 'epochs'?"
    """
    names = list(known)
    return f"found unknown {what} {name!r}, expected {listed(names)}{near(name, names)}"


def listed(names: Iterable[str]) -> str:
    """Names in a row, the last after "or".

    >>> listed(["sgd", "adam", "adamw"])
    'sgd, adam or adamw'
    """
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def sorted_lines(faults: Iterable[Fault], file: str) -> Iterator[str]:
    """Each different fault once, in the order of the file."""
    for fault in sorted(set(faults)):
        yield fault.line(file)
