"""Tables in files: which column is predicted, which are features, and what their cells are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trials.data.cells import as_numbers, factorize
from trials.data.checks import Column, ColumnType, Source
from trials.errors import DataError
from trials.locate import one_line

if TYPE_CHECKING:
    import pandas as pd

    from trials.recipe import Data

_MOST_CATEGORIES = 1000
"""A column of more names than these is rather an identifier or a text."""
_MOST_SUSPECT_CLASSES = 20
"""More numbers than these that are no whole numbers, or hardly ever occur twice, are rather a quantity."""
_TYPES: dict[str, ColumnType] = {
    "string": "string",
    "mixed-integer": "string",
    "boolean": "boolean",
    "integer": "long",
    "floating": "double",
    "mixed-integer-float": "double",
    "decimal": "double",
    "empty": "double",
}
"""By what pandas finds in a column."""


def read_csv(path: Path, data: Data) -> Source:
    """A file of comma-separated values with a header. An empty cell, and words such as NA, are missing."""
    return table_source(csv_frame(path, data.text), data, f"csv:{path}")


def read_parquet(path: Path, data: Data) -> Source:
    """A Parquet file. Null is missing."""
    return table_source(parquet_frame(path), data, f"parquet:{path}")


def csv_frame(path: Path, text: str | None) -> pd.DataFrame:
    """The rows of a file of comma-separated values, of which the column ``text`` is taken as it is written.

    Raises ``DataError`` in one line.
    """
    import pandas as pd

    where = f"csv:{path}"
    if not path.is_file():
        raise DataError(f"{where}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
            _check_distinct([name for name in header.iloc[0] if name], where)
            frame = pd.read_csv(path, index_col=False, low_memory=False)
            if text in frame:
                # A text is what was written, even where it is a number or the word null.
                written = pd.read_csv(path, usecols=[text], dtype=str, na_filter=False)
                frame[text] = written[text]
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{where}: the file is empty; expected a header and rows") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}:{_undecodable_line(path)}: not UTF-8; save the file as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read ({one_line(error)}); expected commas between columns") from error
    return frame


def parquet_frame(path: Path) -> pd.DataFrame:
    """The rows of a Parquet file. Raises ``DataError`` in one line."""
    import pandas as pd
    from pyarrow import ArrowException

    where = f"parquet:{path}"
    if not path.is_file():
        raise DataError(f"{where}: no such file")
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read ({one_line(error)}); expected a Parquet file") from error


def table_source(frame: pd.DataFrame, data: Data, where: str) -> Source:
    """The rows of a table: texts if ``data.text`` names their column, else all columns but the target as features.

    ``where`` says in errors which table it is. Raises ``DataError`` in one line, with the column and the row (counted
    from 0).
    """
    frame = frame.rename(columns=str)
    names = list(frame.columns)
    _check_distinct(names, where)
    _check_keys(names, data, where)
    if not len(frame):
        raise DataError(f"{where}: found no rows, expected at least one a class and split")
    targets, classes = TARGETS[data.task](frame[data.target], f"{where}: column {data.target!r} (data.target)")
    if data.text is not None:
        return Source(frame[data.text].to_numpy(dtype=object), targets, classes)
    features = [name for name in names if name != data.target and name not in data.drop]
    if not features:
        raise DataError(f"{where}: no columns are left beside {data.target!r}, expected at least one feature")
    columns = [_column(frame[name], name in data.categorical, f"{where}: column {name!r}") for name in features]
    cells = np.column_stack([values for _, values in columns])
    return Source(cells, targets, classes, columns=tuple(column for column, _ in columns))


def _check_distinct(names: list[str], where: str) -> None:
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise DataError(f"{where}: two columns are named {twice!r}; rename one")


def _check_keys(names: list[str], data: Data, where: str) -> None:
    """Refuse keys of the recipe that name no column, or the target for another purpose."""
    if data.target is None:
        raise DataError(f"data.target: missing, expected the column of {where} to predict, one of: {', '.join(names)}")
    keys = {"target": (data.target,), "text": (data.text,), "drop": data.drop, "categorical": data.categorical}
    for key, wanted in keys.items():
        for name in wanted:
            if name is not None and name not in names:
                near = get_close_matches(name, names, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise DataError(f"data.{key}: {where} has no column {name!r}{hint}; it has: {', '.join(names)}")
            if key != "target" and name == data.target:
                raise DataError(f"data.{key}: {name!r} is what is predicted (data.target); name another column")


def _column(values: pd.Series, categorical: bool, where: str) -> tuple[Column, np.ndarray]:
    """What a column of features is, and its cells (N,) as numbers or codes, NaN where missing."""
    import pandas as pd

    categorical = categorical or isinstance(values.dtype, pd.CategoricalDtype)
    kind = _type(values, where)
    if kind in ("double", "long") and not categorical:
        return Column(str(values.name), kind), as_numbers(values)
    if not categorical:
        _check_no_words_among_numbers(values, where)
    codes, names = factorize(values)
    if len(names) > _MOST_CATEGORIES and not categorical:
        raise DataError(
            f"{where}: found {len(names)} different names, such as {names[-1]!r}, expected at most {_MOST_CATEGORIES}; "
            "leave an identifier out by data.drop, or name the column in data.categorical"
        )
    return Column(str(values.name), kind, names), np.where(codes < 0, np.nan, codes)


def _check_no_words_among_numbers(values: pd.Series, where: str) -> None:
    """A few words among numbers are faults or marks of missing cells: they would make a category of each number."""
    import pandas as pd

    words = (pd.to_numeric(values, errors="coerce").isna() & values.notna()).to_numpy()
    if words.any() and 2 * words.sum() < values.notna().sum():
        row = int(words.argmax())
        raise DataError(
            f"{where}: found {values.iloc[row]!r} in row {row}, counted from 0 ({words.sum()} such), among numbers; "
            "repair it, leave the cell empty if it is missing, or name the column in data.categorical"
        )


def _type(values: pd.Series, where: str) -> ColumnType:
    import pandas as pd

    is_categorical = isinstance(values.dtype, pd.CategoricalDtype)
    found = pd.api.types.infer_dtype(values.astype(object) if is_categorical else values, skipna=True)
    if found not in _TYPES:
        raise DataError(
            f"{where}: found values of type {found}, expected numbers or names; convert them, or leave the column out "
            "by data.drop"
        )
    kind = _TYPES[found]
    return "double" if kind == "long" and values.hasnans else kind


def _classes(values: pd.Series, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices (N,) and the names of the classes, sorted."""
    _check_none_missing(values, where)
    codes, names = factorize(values)
    if _type(values, where) in ("double", "long") and _looks_continuous(values, len(names)):
        raise DataError(
            f"{where}: found {len(names)} different numbers in {len(values)} rows, which look like a quantity; "
            "set data.task: regression"
        )
    return codes, names


def _looks_continuous(values: pd.Series, distinct: int) -> bool:
    """Whether so many different numbers are hardly classes, each of which needs at least three examples."""
    if distinct <= _MOST_SUSPECT_CLASSES:
        return False
    return distinct * 3 > len(values) or not all(float(value).is_integer() for value in values)


def _quantities(values: pd.Series, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers (N,), and no classes."""
    import pandas as pd

    _check_none_missing(values, where)
    if _type(values, where) == "string":
        row = int(pd.to_numeric(values, errors="coerce").isna().to_numpy().argmax())
        raise DataError(
            f"{where}: found {values.iloc[row]!r} in row {row}, counted from 0, expected a number; for classes, leave "
            "data.task out"
        )
    return as_numbers(values), ()


def _check_none_missing(values: pd.Series, where: str) -> None:
    missing = values.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{where}: found no value in row {int(missing.argmax())}, counted from 0 ({missing.sum()} such), expected "
            "one in each row; fill it in or remove the row"
        )


def _undecodable_line(path: Path) -> int:
    """The number of the first line that is not UTF-8, counted from 1."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


TARGETS: dict[str, Callable[[pd.Series, str], tuple[np.ndarray, tuple[str, ...]]]] = {
    "classification": _classes,
    "regression": _quantities,
}
