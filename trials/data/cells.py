"""A column's cells as numbers or as codes of names: the same when a file is read and when a model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trials.locate import one_line

if TYPE_CHECKING:
    import pandas as pd


def as_numbers(values: pd.Series) -> np.ndarray:
    """A column as float64 (N,), NaN where missing. Raises ``ValueError`` in one line if it holds something else."""
    import pandas as pd

    if getattr(values.dtype, "kind", "O") in "mMc":
        raise ValueError(f"column {values.name!r}: found values of type {values.dtype}, expected numbers")
    try:
        numbers: np.ndarray = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"column {values.name!r}: {_first_word(values) or one_line(error)}, expected numbers"
        ) from error
    return numbers


def _first_word(values: pd.Series) -> str | None:
    """Which cell is no number, ``None`` if they all are, or are of no kind that could be."""
    import pandas as pd

    try:
        words = pd.to_numeric(values, errors="coerce").isna() & values.notna()
    except TypeError:
        return None
    row = int(words.to_numpy().argmax())
    return f"found {values.iloc[row]!r} in row {row}, counted from 0" if words.any() else None


def factorize(values: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column of names as codes (N,) into its sorted categories, -1 where missing; see :func:`category_name`.

    Raises ``ValueError`` in one line if the cells are no names.
    """
    import pandas as pd

    try:
        codes, cells = pd.factorize(values.astype(object))
    except TypeError as error:
        raise ValueError(f"column {values.name!r}: {one_line(error)}, expected names") from error
    found = sorted(range(len(cells)), key=lambda code: _sort_key(cells[code]))
    names = tuple(dict.fromkeys(category_name(cells[code]) for code in found))
    place = {name: code for code, name in enumerate(names)}
    return np.array([*(place[category_name(cell)] for cell in cells), -1])[codes], names


def _sort_key(cell: Any) -> tuple[bool, float, str]:
    """Numbers by size, before words by their letters."""
    is_number = isinstance(cell, (int, float, np.number, np.bool_))
    return not is_number, float(cell) if is_number else 0.0, category_name(cell)


def category_name(cell: Any) -> str:
    """What a cell is called as a category: the same for a whole number whether its column is read as int or float.

    >>> category_name("red"), category_name(94110.0), category_name(2.5), category_name(True)
    ('red', '94110', '2.5', 'True')
    """
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell))
    if isinstance(cell, (float, np.floating)):
        return str(int(cell)) if float(cell).is_integer() else repr(float(cell))
    return str(cell)
