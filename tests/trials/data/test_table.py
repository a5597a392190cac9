import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trials.data import Column, Preprocess
from trials.data.table import TablePreprocess

NAN = np.nan
COLUMNS = (
    Column("age", "long"),
    Column("job", "string", ("baker", "cook", "smith")),
    Column("pay", "double"),
    Column("city", "string", ("Rome", "Oslo")),
)
CELLS = np.array([[20.0, 2, 1.0, 0], [40.0, 0, NAN, NAN], [60.0, 2, 3.0, 0]])
"""Training rows: the cook is of another split, one pay and one city are missing, Oslo occurs nowhere."""
FITTED = TablePreprocess.fit(CELLS, COLUMNS)
STEP = np.sqrt(1.5)
"""20 / the population standard deviation of 20, 40, 60."""

# age, pay | pay missing | baker, smith | Rome, no city
EXPECTED = [
    [-STEP, -1, 0, 0, 1, 1, 0],
    [0, 0, 1, 1, 0, 0, 1],
    [STEP, 1, 0, 0, 1, 1, 0],
]
FRAME = pd.DataFrame(
    {"age": [20, 40, 60], "job": ["smith", "baker", "smith"], "pay": [1, None, 3], "city": ["Rome", None, "Rome"]}
)


def test_numbers_are_standardised_missing_cells_marked_and_names_made_one_hot() -> None:
    assert FITTED.spec.kind == "features"
    assert FITTED.spec.shape == (7,)
    rows = FITTED.normalise(FITTED.recode(CELLS, COLUMNS))
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows, EXPECTED, rtol=1e-7)


def test_a_name_that_training_does_not_have_is_all_zeros() -> None:
    held_out = FITTED.recode(np.array([[40.0, 1, 2.0, 1]]), COLUMNS)
    assert FITTED.normalise(held_out).tolist() == [[0, 0, 0, 0, 0, 0, 0]]
    assert FITTED([{"age": 40, "job": "king", "pay": 2, "city": "Bern"}]).tolist() == [[0, 0, 0, 0, 0, 0, 0]]


def test_cells_that_training_never_misses_are_the_mean_and_no_name() -> None:
    row = FITTED({"age": None, "job": None, "pay": 2.0, "city": "Rome"})
    assert row.tolist() == [[0, 0, 0, 0, 0, 1, 0]]


@pytest.mark.parametrize(
    "raw",
    [
        FRAME,
        FRAME[["city", "pay", "age", "job"]].assign(other=1),
        FRAME.astype({"job": "category", "pay": "Float64", "age": "Int64"}),
        FRAME.set_index(pd.Index([7, 7, 5])),
        {name: list(FRAME[name]) for name in reversed(FRAME.columns)},
        {name: FRAME[name].to_numpy() for name in FRAME.columns},
        FRAME.to_dict("records"),
        [[20, "smith", 1, "Rome"], [40, "baker", None, None], (60, "smith", 3, "Rome")],
        np.array([[20, "smith", 1, "Rome"], [40, "baker", NAN, None], [60, "smith", 3, "Rome"]], dtype=object),
        FRAME.astype(object),
    ],
)
def test_rows_of_every_shape_give_exactly_what_training_saw(raw: Any) -> None:
    assert torch.equal(FITTED(raw), FITTED.normalise(FITTED.recode(CELLS, COLUMNS)))


@pytest.mark.parametrize("raw", [FRAME.iloc[0].to_dict(), [20, "smith", 1, "Rome"], FRAME.iloc[:1]])
def test_one_row_is_a_batch_of_one(raw: Any) -> None:
    np.testing.assert_allclose(FITTED(raw), EXPECTED[:1], rtol=1e-7)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (FRAME.drop(columns="pay"), "^column 'pay' is missing; expected the columns age, job, pay, city$"),
        (pd.concat([FRAME, FRAME["age"]], axis=1), "^column 'age' is there 2 times"),
        (FRAME.assign(age=["20", "forty", "60"]), "^column 'age': .*\"?forty\"?.* expected numbers"),
        (FRAME.assign(age=np.inf), "^column 'age': found inf, expected numbers"),
        (FRAME.assign(age=pd.Timestamp("2020-01-01")), "^column 'age': found values of type datetime64.* expected num"),
        (FRAME.assign(job=[["smith"]] * 3), "^column 'job': .*list.*, expected names"),
        ([[20, "smith", 1]], "^found rows that make no table .*expected 4 columns: age, job, pay, city"),
        (np.zeros((2, 4, 4)), "^found rows that make no table"),
        ({"age": [20, 40], "job": ["smith"]}, "^found rows that make no table"),
    ],
)
def test_what_is_no_such_table_is_one_clear_line(raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        FITTED(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("centre", [1e9, -1.7e15])
def test_numbers_far_from_zero_keep_their_digits(centre: float) -> None:
    fitted = TablePreprocess.fit(np.array([[centre - 1], [centre + 1]]), (Column("id"),))
    assert fitted([[centre - 1], [centre + 1], [centre + 3]]).tolist() == [[-1.0], [1.0], [3.0]]


def test_a_column_that_does_not_vary_is_zero_and_one_that_is_all_missing_is_marked() -> None:
    cells = np.array([[0.1, NAN]] * 3)
    fitted = TablePreprocess.fit(cells, (Column("a"), Column("b")))
    assert fitted.normalise(torch.from_numpy(cells)).tolist() == [[0, 0, 1]] * 3
    assert fitted([[1.1, 5.0]]).tolist() == [[1, 5, 0]]


def test_json_and_pickle_round_trips_give_the_same_tensor() -> None:
    before = FITTED(FRAME)
    values = json.loads(json.dumps(FITTED.to_dict()))
    again = Preprocess.from_dict(values)
    assert again == FITTED == pickle.loads(pickle.dumps(FITTED))
    assert again.to_dict() == values
    assert torch.equal(again(FRAME), before)


def test_columns_say_what_rows_are_made_of() -> None:
    assert FITTED.columns() == [("age", "long"), ("job", "string"), ("pay", "double"), ("city", "string")]
    assert FITTED.describe_raw() == (np.dtype(object), (4,))


def test_a_batch_is_not_written_to() -> None:
    cells = FITTED.recode(CELLS, COLUMNS)
    before = cells.clone()
    FITTED.normalise(cells)
    np.testing.assert_array_equal(cells, before)
