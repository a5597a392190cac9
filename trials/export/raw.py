"""From what a split holds back to raw examples, for whoever is to preprocess them himself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from trials.data import Preprocess, TablePreprocess, TextPreprocess
from trials.data.table import CategoryColumn
from trials.data.text import PADDING
from trials.export.graph import batch_of

UNLIKE_ANY = "\N{REPLACEMENT CHARACTER}"
"""A word, or a name of a category, that no training split is expected to have."""


def raw_of(preprocess: Preprocess, held: Tensor) -> Any:
    """Raw examples that ``preprocess`` turns into the very input that ``held`` (N, ...) stands for.

    An array of images or features; a DataFrame of a table's rows, or of texts in a column ``text``.
    """
    if isinstance(preprocess, TablePreprocess):
        return _rows(preprocess, held.numpy())
    if isinstance(preprocess, TextPreprocess):
        return _texts(preprocess, held.tolist())
    return batch_of(preprocess, held).numpy()


def _rows(preprocess: TablePreprocess, cells: np.ndarray) -> Any:
    import pandas as pd

    columns = {}
    for place, column in enumerate(preprocess.fields):
        values: Any = cells[:, place]
        if isinstance(column, CategoryColumn):
            # -1 is a name that the training split lacks; missing cells come after the last name.
            names = [*(_CELLS[column.type](name) for name in column.categories), None, UNLIKE_ANY]
            values = [names[int(code)] for code in values]
        elif column.type == "long" and not np.isnan(values).any():
            values = values.astype(np.int64)
        columns[column.name] = values
    return pd.DataFrame(columns)


_CELLS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "long": int,
    "double": float,
    "boolean": lambda name: name == "True",
}
"""What a cell was before it became the name of a category, by the type of its column."""


def _texts(preprocess: TextPreprocess, ids: list[list[int]]) -> Any:
    import pandas as pd

    words = [UNLIKE_ANY, UNLIKE_ANY, *preprocess.vocabulary]
    return pd.DataFrame({"text": [" ".join(words[i] for i in row if i != PADDING) for row in ids]})
