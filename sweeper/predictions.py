"""Predictions as CSV or JSON, one row an example."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from trials.data import Target

DIGITS = 6
"""Significant digits of probabilities and values: those that float32 has."""


@dataclass(frozen=True)
class Answer:
    """What a model says of one example."""

    example: str
    """Its file, and where that holds several, its number in it, counted from 0: ``houses.csv[3]``."""
    predicted: str | None
    """The likeliest class."""
    figure: float
    """The probability of that class, or the value."""
    probabilities: list[float]
    """Of each class, in their order."""


@dataclass(frozen=True)
class Columns:
    """What is said of each example."""

    is_class: bool
    classes: tuple[str, ...]
    """Whose probabilities are given one by one."""

    def row(self, answer: Answer) -> dict[str, Any]:
        """The cells of an answer by their columns."""
        figure = _rounded(answer.figure)
        if not self.is_class:
            return {"example": answer.example, "value": figure}
        row: dict[str, Any] = {"example": answer.example, "class": answer.predicted, "probability": figure}
        if self.classes:
            row["probabilities"] = dict(zip(self.classes, map(_rounded, answer.probabilities), strict=True))
        return row


def columns_of(target: Target, *, all_classes: bool) -> Columns:
    """The columns for answers to ``target``."""
    return Columns(target.task == "classification", target.classes if all_classes else ())


class Writer(Protocol):
    """Takes answers one by one."""

    def write(self, answer: Answer) -> None:
        """Write one."""

    def close(self) -> None:
        """Write what comes after the last."""


class CsvWriter:
    """A header and a line an answer; the probability of a class stands in a column ``probability of CLASS``."""

    def __init__(self, file: TextIO, columns: Columns) -> None:
        self._columns = columns
        self._lines = csv.writer(file, lineterminator="\n")
        names = ["example", "class", "probability"] if columns.is_class else ["example", "value"]
        self._lines.writerow([*names, *(f"probability of {name}" for name in columns.classes)])

    def write(self, answer: Answer) -> None:
        row = self._columns.row(answer)
        each = row.pop("probabilities", {})
        self._lines.writerow([*row.values(), *each.values()])

    def close(self) -> None:
        """There is nothing after the last line."""


class JsonWriter:
    """A list of objects, one a line; what is no finite number, which JSON does not know, is null."""

    def __init__(self, file: TextIO, columns: Columns) -> None:
        self._columns = columns
        self._file = file
        self._before = "[\n"

    def write(self, answer: Answer) -> None:
        row = _known_to_json(self._columns.row(answer))
        self._file.write(self._before + json.dumps(row, ensure_ascii=False, allow_nan=False))
        self._before = ",\n"

    def close(self) -> None:
        self._file.write("\n]\n" if self._before == ",\n" else "[]\n")


WRITERS: dict[str, Callable[[TextIO, Columns], Writer]] = {"csv": CsvWriter, "json": JsonWriter}


def _known_to_json(row: dict[str, Any]) -> dict[str, Any]:
    """
    >>> _known_to_json({"class": "cat", "probability": math.nan, "probabilities": {"cat": math.inf, "dog": 0.5}})
    {'class': 'cat', 'probability': None, 'probabilities': {'cat': None, 'dog': 0.5}}
    """
    return {
        name: _known_to_json(cell) if isinstance(cell, dict) else None if _is_endless(cell) else cell
        for name, cell in row.items()
    }


def _is_endless(cell: object) -> bool:
    return isinstance(cell, float) and not math.isfinite(cell)


def _rounded(value: float) -> float:
    """A value with the digits that it has.

    >>> _rounded(0.8999999761581421), _rounded(0.0)
    (0.9, 0.0)
    """
    return float(f"{value:.{DIGITS}g}")
