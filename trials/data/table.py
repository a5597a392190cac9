"""Rows of a table as what a model takes: standardised numbers, marks for missing cells, one-hot categories.

A split holds the cells as they are, numbers and codes of categories, so that they take little memory and stay exact;
each batch is turned into the model's input on its device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from trials.data.cells import as_numbers, factorize
from trials.data.checks import Column, ColumnType
from trials.data.moments import moments
from trials.data.preprocess import InputSpec, Preprocess
from trials.locate import one_line

if TYPE_CHECKING:
    import pandas as pd

_UNSEEN = -1.0
"""The code of a category that the training split does not have: none of its columns is hot."""


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, given to the model as ``(value - mean) / std``."""

    name: str
    type: ColumnType
    mean: float
    """Of the training split."""
    std: float
    """Population standard deviation, likewise; 1 where the training split does not vary."""
    missing: bool
    """Whether the training split misses cells, which then have a column of their own that says so."""


@dataclass(frozen=True)
class CategoryColumn:
    """A column of names, given to the model as one-hot columns."""

    name: str
    type: ColumnType
    categories: tuple[str, ...]
    """Those of the training split, in the order of their one-hot columns."""
    missing: bool
    """Whether the training split misses cells, which then are one more category, the last."""

    @property
    def width(self) -> int:
        """How many columns the model is given."""
        return len(self.categories) + self.missing

    def encode(self, codes: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Codes (N,) into ``names``, -1 where missing -> float64 codes (N,) of this column's categories."""
        own = {name: float(code) for code, name in enumerate(self.categories)}
        missing = float(len(self.categories)) if self.missing else _UNSEEN
        # A code of -1 takes the last place.
        of_code = np.array([*(own.get(name, _UNSEEN) for name in names), missing])
        return np.asarray(of_code[codes])


@dataclass(frozen=True)
class TablePreprocess(Preprocess):
    """Cells of a table -> float32 (N, width), in this order, each by the order of the columns.

    The standardised numbers, 0 (their mean) where missing; for each column of numbers that misses cells in the training
    split, 1 where missing and else 0; for each column of names, its one-hot columns, all zeros for a name that the
    training split does not have.
    """

    fields: tuple[NumberColumn | CategoryColumn, ...]
    kind: Literal["table"] = "table"
    _constants: dict[torch.device, _Constants] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def fit(cls, cells: np.ndarray, columns: Sequence[Column]) -> TablePreprocess:
        """Measure the training split: ``cells`` (N, F) float64, as ``Source.inputs`` holds a table."""
        return cls(
            tuple(
                _fit_numbers(cells[:, position], column)
                if column.categories is None
                else _fit_categories(cells[:, position], column, column.categories)
                for position, column in enumerate(columns)
            )
        )

    @property
    def spec(self) -> InputSpec:
        numbers = [column for column in self.fields if isinstance(column, NumberColumn)]
        hot = sum(column.width for column in self.fields if isinstance(column, CategoryColumn))
        return InputSpec("features", (len(numbers) + sum(column.missing for column in numbers) + hot,))

    def recode(self, cells: np.ndarray, columns: Sequence[Column]) -> Tensor:
        """Cells (N, F) of a source -> float64 (N, F) as splits hold them, with the codes of this preprocessing."""
        own = cells.copy()
        for position, (mine, column) in enumerate(zip(self.fields, columns, strict=True)):
            if isinstance(mine, CategoryColumn):
                codes = np.where(np.isnan(cells[:, position]), -1, cells[:, position]).astype(np.int64)
                own[:, position] = mine.encode(codes, column.categories or ())
        return torch.from_numpy(own)

    def normalise(self, batch: Tensor) -> Tensor:
        """Cells (N, F) float64 as splits hold them -> float32 (N, width), on the same device."""
        constants = self._constants.get(batch.device)
        if constants is None:
            constants = self._constants[batch.device] = self._make_constants(batch.device)
        numbers = batch[:, constants.numbers]
        missing = numbers.isnan()
        # In float64, and subtracted first: far from zero, float32 has no digits left for the differences.
        standard = numbers.sub(constants.mean).div_(constants.std).masked_fill_(missing, 0.0)
        hot = batch[:, constants.hot] == constants.code
        return torch.cat([standard.float(), missing[:, constants.marked].float(), hot.float()], dim=1)

    def __call__(self, raw: Any) -> Tensor:
        """Rows of a table -> float32 (N, width) on the host, ready for the model.

        ``raw`` is a pandas DataFrame with its columns in any order (columns of no use are passed over), a dict of
        columns, a row or a list of rows as dicts, or a row or rows as lists or arrays in the order of the columns. A
        missing cell is ``None`` or NaN. Raises ``ValueError`` in one line for a missing column, or cells that are no
        numbers in a column of numbers.
        """
        frame = self._frame(raw)
        cells = np.empty((len(frame), len(self.fields)))
        for position, column in enumerate(self.fields):
            if isinstance(column, NumberColumn):
                cells[:, position] = numbers = as_numbers(frame[column.name])
                if np.isinf(numbers).any():
                    raise ValueError(f"column {column.name!r}: found {numbers[np.isinf(numbers)][0]}, expected numbers")
            else:
                codes, names = factorize(frame[column.name])
                cells[:, position] = column.encode(codes, names)
        return self.normalise(torch.from_numpy(cells))

    def columns(self) -> list[tuple[str, str]]:
        return [(column.name, column.type) for column in self.fields]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        fields = [
            {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(column).items()}
            for column in self.fields
        ]
        return {"kind": self.kind, "fields": fields}

    @classmethod
    def read(cls, values: dict[str, Any]) -> TablePreprocess:
        """The inverse of :meth:`to_dict`."""
        return cls(
            tuple(
                CategoryColumn(**(column | {"categories": tuple(column["categories"])}))
                if "categories" in column
                else NumberColumn(**column)
                for column in values["fields"]
            )
        )

    def describe_raw(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        return np.dtype(object), (len(self.fields),)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).read, (self.to_dict(),)  # without the constants, which may live on a GPU

    def _make_constants(self, device: torch.device) -> _Constants:
        numbers = [(place, column) for place, column in enumerate(self.fields) if isinstance(column, NumberColumn)]
        hot = [
            (place, code)
            for place, column in enumerate(self.fields)
            if isinstance(column, CategoryColumn)
            for code in range(column.width)
        ]
        whole, exact = torch.int64, torch.float64
        return _Constants(
            numbers=torch.tensor([place for place, _ in numbers], dtype=whole, device=device),
            mean=torch.tensor([column.mean for _, column in numbers], dtype=exact, device=device),
            std=torch.tensor([column.std for _, column in numbers], dtype=exact, device=device),
            marked=torch.tensor([n for n, (_, c) in enumerate(numbers) if c.missing], dtype=whole, device=device),
            hot=torch.tensor([place for place, _ in hot], dtype=whole, device=device),
            code=torch.tensor([code for _, code in hot], dtype=exact, device=device),
        )

    def _frame(self, raw: Any) -> pd.DataFrame:
        import pandas as pd

        names = [column.name for column in self.fields]
        try:
            if isinstance(raw, pd.DataFrame):
                frame = raw
            elif isinstance(raw, Mapping):
                columns = any(np.ndim(cell) for cell in raw.values())
                frame = pd.DataFrame(dict(raw) if columns else [dict(raw)])
            elif isinstance(raw, (list, tuple)) and raw and isinstance(raw[0], Mapping):
                frame = pd.DataFrame(list(raw))
            else:
                rows = raw if np.ndim(raw) > 1 else [raw]
                frame = pd.DataFrame(rows, columns=names)
        except ValueError as error:
            raise ValueError(
                f"found rows that make no table ({one_line(error)}); expected {len(names)} columns: {', '.join(names)}"
            ) from error
        for name in names:
            found = int((frame.columns == name).sum())
            if found != 1:
                fault = "is missing" if found == 0 else f"is there {found} times"
                raise ValueError(f"column {name!r} {fault}; expected the columns {', '.join(names)}")
        return frame


Preprocess._READERS["table"] = TablePreprocess.read


@dataclass(frozen=True, eq=False)
class _Constants:
    """What :meth:`TablePreprocess.normalise` needs on a device."""

    numbers: Tensor
    """Places of the columns of numbers."""
    mean: Tensor
    std: Tensor
    marked: Tensor
    """Which of the numbers may be missing."""
    hot: Tensor
    """Place of the column of each one-hot column."""
    code: Tensor
    """The code for which each one-hot column is 1."""


def _fit_numbers(cells: np.ndarray, column: Column) -> NumberColumn:
    known = cells[~np.isnan(cells)]
    mean, std = moments(known) if known.size else (0.0, 1.0)
    return NumberColumn(column.name, column.type, mean, std or 1.0, missing=known.size < cells.size)


def _fit_categories(cells: np.ndarray, column: Column, names: Sequence[str]) -> CategoryColumn:
    missing = np.isnan(cells)
    seen = np.unique(cells[~missing]).astype(np.int64)
    return CategoryColumn(column.name, column.type, tuple(names[code] for code in seen), bool(missing.any()))
