import numpy as np
import pytest

from trials.data.checks import Column, Source, check_source
from trials.errors import DataError

CLASSES = ("a", "b")


def features(rows: int = 4) -> np.ndarray:
    return np.arange(rows * 3, dtype=np.float64).reshape(rows, 3)


def test_values_survive_and_types_become_canonical() -> None:
    checked = check_source(Source(features(), np.array([0, 1, 0, 1], np.uint8), CLASSES), "s")
    assert (checked.inputs.dtype, checked.targets.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(checked.inputs, features())
    np.testing.assert_array_equal(checked.targets, [0, 1, 0, 1])
    pixels = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    assert check_source(Source(pixels, np.array([1]), CLASSES), "s").inputs.dtype == np.uint8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_not_finite_in_float32_is_found_by_its_row(value: float) -> None:
    inputs = features(20_000)
    inputs[12_345, 1] = inputs[19_999, 0] = value
    with pytest.raises(DataError, match=r"^s: training examples: NaN or infinite values in 2 of 20000 .* row 12345;"):
        check_source(Source(inputs, np.zeros(20_000, int), CLASSES), "s")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 2], r"label 2 in row 2 is out of range \(2 such\), expected 0 to 1"),
        ([0, -1, 1, 0], r"label -1 in row 1 is out of range"),
        ([0.5, 1, 1, 0], "labels of type float64, expected integers; to predict numbers, set data.task: regression"),
        ([0, 1, 1], r"labels of shape \(3,\), expected \(4,\)"),
    ],
)
def test_bad_labels_are_named(labels: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_source(Source(features(), np.array(labels), CLASSES), "s")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((0, 3)), r"found none \(shape \(0, 3\)\)"),
        (np.zeros(4), r"shape \(4,\), expected images"),
        (np.zeros((4, 3, 32, 32)), r"channels last; use x.transpose\(0, 2, 3, 1\)"),
        (np.array([["a"]] * 4), "inputs of type <U1, expected numbers"),
    ],
)
def test_bad_inputs_are_named(inputs: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_source(Source(inputs, np.zeros(len(inputs), int), CLASSES), "s")


def test_the_test_part_must_be_like_the_training_part() -> None:
    labels = np.array([0, 1, 0, 1])
    with pytest.raises(DataError, match=r"test examples are float32 of shape \(2,\), but .* float32 of shape \(3,\)"):
        check_source(Source(features(), labels, CLASSES, features()[:, :2], labels), "s")
    with pytest.raises(DataError, match="only one of test_inputs and test_targets"):
        check_source(Source(features(), labels, CLASSES, features()), "s")
    with pytest.raises(DataError, match="s: test examples: label 5 in row 0"):
        check_source(Source(features(), labels, CLASSES, features(), labels + 5), "s")


def test_one_class_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match=r"found 1 class\(es\), expected at least 2"):
        check_source(Source(features(), np.zeros(4, int), ("a",)), "s")


def test_numbers_to_predict_become_float64_and_need_no_classes() -> None:
    checked = check_source(Source(features(), np.arange(4), CLASSES), "s", "regression")
    assert checked.targets.dtype == np.float64
    assert checked.targets.tolist() == [0, 1, 2, 3]
    assert checked.classes == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_target_that_is_not_finite_is_found_by_its_row(value: float) -> None:
    targets = np.array([0.0, 1.0, value, value])
    with pytest.raises(DataError, match=r"^s: training examples: target .* in row 2 is not a finite number \(2 such\)"):
        check_source(Source(features(), targets), "s", "regression")


TABLE = (Column("age"), Column("job", "string", ("cook", "smith")))


def test_cells_stay_exact_and_may_be_missing() -> None:
    cells = np.array([[1_700_000_001.0, 1], [np.nan, np.nan]])
    checked = check_source(Source(cells, np.array([0, 1]), CLASSES, columns=TABLE), "s")
    np.testing.assert_array_equal(checked.inputs, cells)
    assert (checked.inputs.dtype, checked.columns) == (np.float64, TABLE)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[1, 0], [-np.inf, 0]], r"column 'age': found -inf in row 1 \(1 such\), expected a finite number, or none"),
        ([[1, 0], [1e39, 0]], r"column 'age': found 1e\+39 in row 1"),
        ([[1, 2], [1, 0]], r"column 'job': found 2.0 in row 0 \(1 such\), expected the code of a category, 0 to 1, or"),
        ([[1, 0.5], [1, -1]], r"column 'job': found 0.5 in row 0 \(2 such\)"),
        ([[1, 2, 3]] * 2, r"found inputs of shape \(2, 3\), expected \(N, 2\), one a column"),
        ([["a", "b"]] * 2, "found inputs of type <U1, expected numbers and codes of categories"),
    ],
)
def test_bad_cells_are_named_by_column_and_row(cells: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=f"^s: training examples: {message}"):
        check_source(Source(np.array(cells), np.array([0, 1]), CLASSES, columns=TABLE), "s")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["hi", ""], "found an empty text in row 1, expected a text"),
        (["hi", 3], "found int 3 in row 1, expected a text"),
        ([None, "hi"], "found NoneType None in row 0, expected a text"),
    ],
)
def test_what_is_no_text_is_named_by_its_row(texts: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"^s: training examples: {message}"):
        check_source(Source(np.array(texts, dtype=object), np.array([0, 1]), CLASSES), "s")


def test_texts_of_any_string_type_are_texts() -> None:
    for texts in (np.array(["one", "two"]), np.array(["one", "two"], dtype=object)):
        checked = check_source(Source(texts, np.array([0, 1]), CLASSES, texts[:1], np.array([1])), "s")
        assert checked.is_text
        assert checked.inputs.tolist() == ["one", "two"]
        assert checked.test_inputs is not None
        assert checked.test_inputs.tolist() == ["one"]
