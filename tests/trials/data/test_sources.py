from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from trials.data import Source, load_source
from trials.errors import DataError
from trials.recipe import Data

X = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def load(source: str, **fields: Any) -> Source:
    return load_source(Data(source=source, **fields))


def save(path: Path, **arrays: Any) -> str:
    np.savez(path / "a.npz", **arrays)
    return f"npz:{path / 'a.npz'}"


def test_digits_are_scikit_learns_own() -> None:
    source, bunch = load("digits"), load_digits()
    np.testing.assert_array_equal(source.inputs, bunch.images)
    np.testing.assert_array_equal(source.targets, bunch.target)
    assert source.inputs.shape == (1797, 8, 8)
    assert source.inputs.max() == 16
    assert source.classes == tuple("0123456789")
    assert source.test_inputs is None


def test_npz_with_train_and_test(tmp_path: Path) -> None:
    source = load(save(tmp_path, x_train=X, y_train=[[0], [2], [1]], x_test=X[:2] + 1, y_test=[1, 2]))
    np.testing.assert_array_equal(source.inputs, X)
    np.testing.assert_array_equal(source.targets, [0, 2, 1])
    np.testing.assert_array_equal(source.test_inputs, X[:2] + 1)
    np.testing.assert_array_equal(source.test_targets, [1, 2])
    assert source.classes == ("0", "1", "2")


@pytest.mark.parametrize("keys", [("x", "y"), ("x_train", "y_train")])
def test_npz_without_a_test_part(tmp_path: Path, keys: tuple[str, str]) -> None:
    source = load(save(tmp_path, **{keys[0]: X, keys[1]: [0, 1, 1]}))
    np.testing.assert_array_equal(source.inputs, X)
    assert source.test_inputs is None


def test_npz_names_classes_by_its_strings_or_by_an_array(tmp_path: Path) -> None:
    source = load(save(tmp_path, x=X, y=["dog", "cat", "dog"]))
    assert source.classes == ("cat", "dog")
    np.testing.assert_array_equal(source.targets, [1, 0, 1])
    assert load(save(tmp_path, x=X, y=[0, 1, 0], classes=["cat", "dog"])).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"found x; missing y; expects x_train, y_train"),
        ({"x_train": X, "y_train": [0, 1, 0], "x_test": X}, "missing y_test"),
        ({"images": X}, "found images; missing x;"),
        ({"x": X, "y": np.eye(3)}, r"y: found labels of shape \(3, 3\), expected \(N,\)"),
        ({"x": X, "y": [0, 1, 7], "classes": ["a", "b"]}, "label 7 in row 2 is out of range"),
        ({"x_train": X, "y_train": ["a", "b", "a"], "x_test": X, "y_test": ["a", "z", "a"]}, "label 'z' is not among"),
        ({"x": X, "y": np.array([0, 1, None])}, "cannot be read"),
        ({"x": X[:0], "y": np.zeros(0, int)}, "found 0 class"),
    ],
)
def test_npz_faults_are_one_line(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(save(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_npz_of_numbers_to_predict(tmp_path: Path) -> None:
    source = load(save(tmp_path, x_train=X, y_train=[[0.5], [2], [1]], x_test=X, y_test=[3, 2, 1]), task="regression")
    assert source.targets.tolist() == [0.5, 2.0, 1.0]
    assert source.test_targets is not None
    assert source.test_targets.tolist() == [3.0, 2.0, 1.0]
    assert source.targets.dtype == source.test_targets.dtype == np.float64
    assert source.classes == ()


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (
            [0.5, 2.0, 1.0],
            "classification",
            "labels of type float64, .*; to predict numbers, set data.task: regression",
        ),
        (["a", "b", "a"], "regression", "targets of type <U1, expected numbers; for classes, leave data.task out"),
        ([0.5, np.nan, 1.0], "regression", "training examples: target nan in row 1 is not a finite number"),
    ],
)
def test_npz_of_another_task_says_so(tmp_path: Path, labels: list[Any], task: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(save(tmp_path, x=X, y=labels), task=task)


def test_npz_that_is_missing_or_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/none.npz: no such file$"):
        load(f"npz:{tmp_path}/none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match=r"/text.npz: found no numpy file"):
        load(f"npz:{tmp_path}/text.npz")
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(DataError, match="found a single array"):
        load(f"npz:{tmp_path}/single.npy")


def picture(path: Path, value: int, side: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, np.uint8)).save(path)


def test_folder_of_classes(tmp_path: Path) -> None:
    picture(tmp_path / "ant" / "1.png", 10)
    picture(tmp_path / "bee" / "1.png", 20)
    source = load(f"folder:{tmp_path}")
    assert source.classes == ("ant", "bee")
    np.testing.assert_array_equal(source.inputs[:, 0, 0], [10, 20])
    assert source.test_inputs is None


def test_folder_with_train_and_test_shares_its_classes(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "ant" / "1.png", 10)
    picture(tmp_path / "train" / "bee" / "1.png", 20)
    picture(tmp_path / "test" / "bee" / "1.png", 30)
    source = load(f"folder:{tmp_path}")
    np.testing.assert_array_equal(source.targets, [0, 1])
    np.testing.assert_array_equal(source.test_targets, [1])
    assert source.test_inputs is not None
    np.testing.assert_array_equal(source.test_inputs[:, 0, 0], [30])


def test_folder_of_mixed_sizes_needs_and_obeys_image_size(tmp_path: Path) -> None:
    picture(tmp_path / "ant" / "1.png", 10, side=4)
    picture(tmp_path / "bee" / "1.png", 20, side=6)
    with pytest.raises(DataError, match=r"/bee/1.png: found a picture of 6x6 pixels"):
        load(f"folder:{tmp_path}")
    source = load(f"folder:{tmp_path}", image_size=3)
    np.testing.assert_array_equal(source.inputs, np.repeat([10, 20], 9).reshape(2, 3, 3))


def test_folders_have_no_numbers(tmp_path: Path) -> None:
    picture(tmp_path / "ant" / "1.png", 10)
    with pytest.raises(DataError, match=r"data.task: folder:.* has classes, not numbers"):
        load(f"folder:{tmp_path}", task="regression")


def test_folder_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="/none: no such folder"):
        load(f"folder:{tmp_path}/none")
    with pytest.raises(DataError, match="no sub-folders; expected one for each class"):
        load(f"folder:{tmp_path}")
    picture(tmp_path / "train" / "ant" / "1.png", 10)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="found train, val; expected both train/ and test/"):
        load(f"folder:{tmp_path}")
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="found test, train, val; expected only train/ and test/"):
        load(f"folder:{tmp_path}")
    (tmp_path / "val").rmdir()
    with pytest.raises(DataError, match="test/ has no pictures in class folders"):
        load(f"folder:{tmp_path}")


USER_MODULE = """
import numpy as np
from trials.data import Source

def make(rows):
    return Source(np.full((rows, 2), 3.0), np.arange(rows) % 2, ("a", "b"))

def numbers(rows):
    return Source(np.full((rows, 2), 3.0), np.arange(rows) / 4)

def texts(words):
    return Source(np.array(words), np.arange(len(words)) % 2, ("a", "b"))

def wrong():
    return 3

def broken():
    raise KeyError("column")

number = 3
"""


def test_a_users_function_is_called_with_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_source.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = load("users_source:make", arguments={"rows": 5})
    np.testing.assert_array_equal(source.inputs, np.full((5, 2), 3.0))
    assert load("users_source:numbers", arguments={"rows": 3}, task="regression").targets.tolist() == [0, 0.25, 0.5]
    assert load("users_source:texts", arguments={"words": ["hi", "you"]}).inputs.tolist() == ["hi", "you"]
    for name, arguments, message in [
        ("numbers", {"rows": 5}, r"found 0 class\(es\), expected at least 2"),
        ("wrong", {}, "returned int, expected trials.data.Source"),
        ("broken", {}, "raised KeyError: 'column'"),
        ("make", {"lines": 3}, "raised TypeError: .*unexpected keyword argument 'lines'"),
        ("number", {}, "is int, expected a function"),
        ("mak", {}, "did you mean 'make'"),
    ]:
        with pytest.raises(DataError, match=message):
            load(f"users_source:{name}", arguments=arguments)


@pytest.mark.parametrize("name", ["digit", "npz", "", ":x", "module:"])
def test_an_unknown_source_lists_the_known_ones(name: str) -> None:
    with pytest.raises(
        DataError, match="expected one of: digits, npz:PATH, folder:PATH, csv:PATH, parquet:PATH, torchv"
    ):
        load(name)


@pytest.mark.parametrize("fields", [{"target": "y"}, {"text": "t"}, {"drop": ("a",)}, {"categorical": ("a",)}])
def test_only_tables_have_columns(fields: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=rf"^data.{next(iter(fields))}: digits has no columns to choose from"):
        load("digits", **fields)
