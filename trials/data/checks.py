"""What must hold before any training: each fault in the data is one line that says where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trials.errors import DataError

_ROWS_AT_A_TIME = 8192


@dataclass(frozen=True, eq=False)
class Source:
    """The examples as they come, before any split.

    A `module:function` source returns one of these. The arrays are not copied and never written to.
    """

    inputs: np.ndarray
    """Images (N, H, W) or (N, H, W, C), uint8 or float; or features (N, F), float."""
    targets: np.ndarray
    """(N,) integer class indices, 0 to len(classes) - 1."""
    classes: tuple[str, ...]
    """The names of the classes, by index."""
    test_inputs: np.ndarray | None = None
    """As `inputs`, when the data comes with a test split of its own."""
    test_targets: np.ndarray | None = None
    """As `targets`, for `test_inputs`."""


def check_source(source: Source, name: str) -> Source:
    """The same source with inputs as uint8 or float32 and targets as int64.

    ``name`` says in errors which source it is. Raises ``DataError``: no examples, shapes that do not fit together,
    NaN or infinite inputs, labels that are not integers in range, fewer than two classes.
    """
    if len(source.classes) < 2:
        raise DataError(f"{name}: found {len(source.classes)} class(es), expected at least 2")
    inputs, targets = _check_part(source.inputs, source.targets, source.classes, f"{name}: training examples")
    if (source.test_inputs is None) != (source.test_targets is None):
        raise DataError(f"{name}: found only one of test_inputs and test_targets; give both or neither")
    if source.test_inputs is None or source.test_targets is None:
        return Source(inputs, targets, tuple(source.classes))
    where = f"{name}: test examples"
    test_inputs, test_targets = _check_part(source.test_inputs, source.test_targets, source.classes, where)
    if test_inputs.shape[1:] != inputs.shape[1:] or test_inputs.dtype != inputs.dtype:
        raise DataError(
            f"{where} are {test_inputs.dtype} of shape {test_inputs.shape[1:]}, "
            f"but the training examples are {inputs.dtype} of shape {inputs.shape[1:]}; make them alike"
        )
    return Source(inputs, targets, tuple(source.classes), test_inputs, test_targets)


def _check_part(
    inputs: np.ndarray, targets: np.ndarray, classes: tuple[str, ...], where: str
) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = np.asarray(inputs), np.asarray(targets)
    if inputs.shape[:1] == (0,) or inputs.size == 0:
        raise DataError(f"{where}: found none (shape {inputs.shape}); expected at least one a class and split")
    _check_shape(inputs, where)
    if targets.shape != inputs.shape[:1]:
        raise DataError(f"{where}: found labels of shape {targets.shape}, expected ({len(inputs)},), one an example")
    return _check_values(inputs, where), _check_labels(targets, len(classes), where)


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


def _check_labels(targets: np.ndarray, classes: int, where: str) -> np.ndarray:
    if targets.dtype.kind not in "iub":
        raise DataError(f"{where}: found labels of type {targets.dtype}, expected integers")
    bad = (targets < 0) | (targets >= classes)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{where}: label {targets[row]} in row {row} is out of range ({bad.sum()} such), "
            f"expected 0 to {classes - 1}"
        )
    return targets.astype(np.int64)
