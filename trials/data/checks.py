"""What must hold before any training: each fault in the data is one line that says where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trials.errors import DataError

ColumnType = Literal["double", "long", "boolean", "string"]
"""What the cells of a column are, by MLflow's names."""

_ROWS_AT_A_TIME = 8192


@dataclass(frozen=True)
class Column:
    """One column of a table: numbers, or the codes of its categories."""

    name: str
    type: ColumnType = "double"
    """What its cells were before they became numbers or codes."""
    categories: tuple[str, ...] | None = None
    """The names that the codes 0, 1, ... stand for; ``None`` if the column holds numbers."""


@dataclass(frozen=True, eq=False)
class Source:
    """The examples as they come, before any split.

    A `module:function` source returns one of these. The arrays are not copied and never written to.
    """

    inputs: np.ndarray
    """Images (N, H, W) or (N, H, W, C), uint8 or float; features (N, F), float; the cells of a table (N, F), float, NaN
    where missing; or texts (N,)."""
    targets: np.ndarray
    """(N,) integer class indices, 0 to len(classes) - 1; or in regression (N,) numbers."""
    classes: tuple[str, ...] = ()
    """The names of the classes, by index; not needed in regression."""
    test_inputs: np.ndarray | None = None
    """As `inputs`, when the data comes with a test split of its own."""
    test_targets: np.ndarray | None = None
    """As `targets`, for `test_inputs`."""
    columns: tuple[Column, ...] | None = None
    """What the columns of `inputs` are, if it is a table."""

    @property
    def is_text(self) -> bool:
        """Whether the examples are texts."""
        return self.inputs.ndim == 1 and self.inputs.dtype.kind in "OUT"


def check_source(source: Source, name: str, task: Literal["classification", "regression"] = "classification") -> Source:
    """The same source in canonical types.

    Inputs become uint8 or float32, those of a table float64, texts an array of objects; targets become int64, or
    float64 in regression, which leaves the classes out. ``name`` says in errors which source it is. Raises
    ``DataError``: no examples, shapes that do not fit together, NaN or infinite inputs (a table's may be NaN), codes of
    no category, empty texts, labels that are not integers in range or numbers that are not finite, too few classes.
    """
    if task == "classification" and len(source.classes) < 2:
        raise DataError(f"{name}: found {len(source.classes)} class(es), expected at least 2")
    if (source.test_inputs is None) != (source.test_targets is None):
        raise DataError(f"{name}: found only one of test_inputs and test_targets; give both or neither")
    classes = tuple(source.classes) if task == "classification" else ()
    where = f"{name}: training examples"
    inputs = _check_inputs(source.inputs, source, where)
    targets = _check_targets(source.targets, len(inputs), classes, where)
    if source.test_inputs is None or source.test_targets is None:
        return Source(inputs, targets, classes, columns=source.columns)
    where = f"{name}: test examples"
    test_inputs = _check_inputs(source.test_inputs, source, where)
    test_targets = _check_targets(source.test_targets, len(test_inputs), classes, where)
    if test_inputs.shape[1:] != inputs.shape[1:] or test_inputs.dtype != inputs.dtype:
        raise DataError(
            f"{where} are {test_inputs.dtype} of shape {test_inputs.shape[1:]}, "
            f"but the training examples are {inputs.dtype} of shape {inputs.shape[1:]}; make them alike"
        )
    return Source(inputs, targets, classes, test_inputs, test_targets, source.columns)


def _check_inputs(inputs: np.ndarray, source: Source, where: str) -> np.ndarray:
    inputs = np.asarray(inputs)
    if inputs.shape[:1] == (0,) or inputs.size == 0:
        raise DataError(f"{where}: found none (shape {inputs.shape}); expected at least one a class and split")
    if source.columns is not None:
        return _check_cells(inputs, source.columns, where)
    if source.is_text:
        return _check_texts(inputs, where)
    _check_shape(inputs, where)
    return _check_values(inputs, where)


def _check_shape(inputs: np.ndarray, where: str) -> None:
    if inputs.ndim not in (2, 3, 4):
        raise DataError(
            f"{where}: found inputs of shape {inputs.shape}, "
            "expected images (N, H, W) or (N, H, W, C), or features (N, F)"
        )
    if inputs.ndim == 4 and inputs.shape[3] > 4 and inputs.shape[1] in (1, 3, 4):
        raise DataError(f"{where}: found shape {inputs.shape}, expected channels last; use x.transpose(0, 2, 3, 1)")


def _check_values(inputs: np.ndarray, where: str) -> np.ndarray:
    if inputs.dtype == np.uint8:
        return np.ascontiguousarray(inputs)
    if inputs.dtype.kind not in "fiub":
        raise DataError(f"{where}: found inputs of type {inputs.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is reported as such below
        inputs = np.ascontiguousarray(inputs, dtype=np.float32)
    bad = np.concatenate(
        [
            ~np.isfinite(inputs[start : start + _ROWS_AT_A_TIME]).reshape(-1, inputs[0].size).all(axis=1)
            for start in range(0, len(inputs), _ROWS_AT_A_TIME)
        ]
    )
    if bad.any():
        raise DataError(
            f"{where}: NaN or infinite values in {bad.sum()} of {len(inputs)} rows, "
            f"first in row {int(bad.argmax())}; repair or remove them"
        )
    return inputs


def _check_cells(inputs: np.ndarray, columns: Sequence[Column], where: str) -> np.ndarray:
    """The cells of a table as float64, which holds years, amounts and identifiers to the digit."""
    if inputs.ndim != 2 or inputs.shape[1] != len(columns):
        raise DataError(f"{where}: found inputs of shape {inputs.shape}, expected (N, {len(columns)}), one a column")
    if inputs.dtype.kind not in "fiub":
        raise DataError(f"{where}: found inputs of type {inputs.dtype}, expected numbers and codes of categories")
    cells = np.ascontiguousarray(inputs, dtype=np.float64)
    for position, column in enumerate(columns):
        values = cells[:, position]
        if column.categories is None:
            bad = np.abs(values) > np.finfo(np.float32).max  # what the model is given is float32; NaN is missing
            expected = "a finite number, or none"
        else:
            bad = ~np.isnan(values) & ~np.isin(values, np.arange(len(column.categories)))
            expected = f"the code of a category, 0 to {len(column.categories) - 1}, or none"
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"{where}: column {column.name!r}: found {values[row]} in row {row} ({bad.sum()} such), "
                f"expected {expected}; repair or remove the row, or leave the column out by data.drop"
            )
    return cells


def _check_texts(inputs: np.ndarray, where: str) -> np.ndarray:
    texts = inputs.astype(object)
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            found = "an empty text" if isinstance(text, str) else f"{type(text).__name__} {text!r}"
            raise DataError(f"{where}: found {found} in row {row}, expected a text; repair or remove the row")
    return texts


def _check_targets(targets: np.ndarray, count: int, classes: tuple[str, ...], where: str) -> np.ndarray:
    targets = np.asarray(targets)
    if targets.shape != (count,):
        raise DataError(f"{where}: found labels of shape {targets.shape}, expected ({count},), one an example")
    return _check_labels(targets, len(classes), where) if classes else _check_numbers(targets, where)


def _check_labels(targets: np.ndarray, classes: int, where: str) -> np.ndarray:
    if targets.dtype.kind not in "iub":
        hint = "; to predict numbers, set data.task: regression" if targets.dtype.kind == "f" else ""
        raise DataError(f"{where}: found labels of type {targets.dtype}, expected integers{hint}")
    bad = (targets < 0) | (targets >= classes)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{where}: label {targets[row]} in row {row} is out of range ({bad.sum()} such), "
            f"expected 0 to {classes - 1}"
        )
    return targets.astype(np.int64)


def _check_numbers(targets: np.ndarray, where: str) -> np.ndarray:
    if targets.dtype.kind not in "fiub":
        raise DataError(
            f"{where}: found targets of type {targets.dtype}, expected numbers; for classes, leave data.task out"
        )
    numbers = targets.astype(np.float64)
    bad = ~(np.abs(numbers) <= np.finfo(np.float32).max)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{where}: target {targets[row]} in row {row} is not a finite number ({bad.sum()} such); "
            "repair or remove these rows"
        )
    return numbers
