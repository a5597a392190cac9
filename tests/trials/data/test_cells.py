import numpy as np
import pandas as pd
import pytest

from trials.data.cells import as_numbers, category_name, factorize

NAN = np.nan


@pytest.mark.parametrize(
    "cells",
    [
        [1.5, None, -2],
        pd.Series([1.5, None, -2], dtype="Float64"),
        ["1.5", None, "-2"],
        pd.Series([1.5, None, -2], dtype=object),
        pd.Series([1.5, None, -2], dtype="float32"),
    ],
)
def test_numbers_of_every_type_are_the_same_numbers(cells: object) -> None:
    numbers = as_numbers(pd.Series(cells))
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, [1.5, NAN, -2])


def test_categories_are_sorted_numbers_by_size_and_missing_ones_have_no_code() -> None:
    codes, names = factorize(pd.Series([10, 9, None, 2.5, 10]))
    assert names == ("2.5", "9", "10")
    assert codes.tolist() == [2, 1, -1, 0, 2]
    assert factorize(pd.Series(["b", None, "a"]))[1] == ("a", "b")


def test_a_category_has_one_name_however_its_column_is_read() -> None:
    assert category_name(94110) == category_name(94110.0) == category_name(np.float32(94110)) == "94110"
    assert category_name("94110") == "94110"
    assert category_name(np.True_) == category_name(True) == "True"
    codes, names = factorize(pd.Series([1, "1", "x"], dtype=object))
    assert names == ("1", "x")
    assert codes.tolist() == [0, 0, 1]
