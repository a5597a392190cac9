from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from trials.data import TablePreprocess, TextPreprocess
from trials.data.preprocess import ArrayPreprocess
from trials.data.table import CategoryColumn, NumberColumn
from trials.export.raw import raw_of


def test_images_come_back_as_the_source_gave_them() -> None:
    for channels, shape in ((1, (5, 4, 3)), (3, (5, 4, 3, 3))):
        preprocess = ArrayPreprocess("image", (channels, 4, 3), 255.0, (0.1,) * channels, (0.5,) * channels)
        held = torch.randint(0, 256, (5, channels, 4, 3), dtype=torch.uint8)
        raw = raw_of(preprocess, held)
        assert (raw.shape, raw.dtype) == (shape, np.uint8)
        assert torch.equal(preprocess(raw), preprocess.normalise(held))


def test_rows_of_a_table_come_back_with_names_types_and_missing_cells() -> None:
    preprocess = TablePreprocess(
        (
            NumberColumn("size", "double", 1.0, 2.0, missing=True),
            NumberColumn("age", "long", 1.0, 2.0, missing=False),
            CategoryColumn("place", "string", ("field", "town"), missing=True),
            CategoryColumn("new", "boolean", ("False", "True"), missing=False),
            CategoryColumn("zip", "long", ("12", "94"), missing=False),
        )
    )
    held = torch.tensor([[1.5, 3, 0, 1, 1], [np.nan, 4, 2, 0, 0], [2.5, 5, -1, 1, 0]], dtype=torch.float64)
    raw = raw_of(preprocess, held)
    assert raw["age"].dtype == np.int64
    assert raw["place"].isna().tolist() == [False, True, False]
    assert raw["place"][0] == "field"
    assert raw["place"][2] not in ("field", "town")
    assert raw["new"].tolist() == [True, False, True]
    assert raw["zip"].tolist() == [94, 12, 12]
    assert torch.equal(preprocess(raw), preprocess.normalise(held))


def test_texts_come_back_with_unknown_words_and_without_padding() -> None:
    preprocess = TextPreprocess(4, ("the", "film", "don't", "!"))
    held = preprocess.encode(["The film, don't !", "", "what the", "the film the film the film"])
    raw = raw_of(preprocess, held)
    assert isinstance(raw, pd.DataFrame)
    assert torch.equal(preprocess.encode(raw["text"].tolist()), held)
