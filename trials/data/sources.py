"""Where examples come from: digits, arrays in an npz file, a folder of pictures, a table, or anything importable."""

from __future__ import annotations

import gzip
import importlib.util
import inspect
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trials.data.checks import Source, check_source
from trials.data.pictures import read_class_folders, stack_pictures, subfolders
from trials.data.table_files import read_csv, read_parquet
from trials.errors import DataError
from trials.locate import locate, one_line

if TYPE_CHECKING:
    from trials.recipe import Data

__all__ = ["Source", "load_source"]

_NPZ_KEYS = "x_train, y_train, x_test, y_test; or x_train, y_train; or x, y (and, if you like, classes)"


def load_source(data: Data) -> Source:
    """Read the examples that ``data.source`` names, checked (see ``checks.check_source``).

    Raises ``DataError`` in one line when they cannot be read or make no sense.
    """
    prefix, _, rest = data.source.partition(":")
    if prefix not in TABLES:
        for key in ("target", "text", "drop", "categorical"):
            if getattr(data, key):
                raise DataError(f"data.{key}: {data.source} has no columns to choose from; leave it out")
    if data.source in BUNDLED:
        source = BUNDLED[data.source]()
    elif prefix in FILES and rest:
        source = FILES[prefix](Path(rest).expanduser(), data)
    elif prefix and rest:
        source = _imported(data)
    else:
        known = [*BUNDLED, *(f"{name}:PATH" for name in FILES), "torchvision.datasets:CLASS", "module:function"]
        raise DataError(f"data.source: found {data.source!r}, expected one of: {', '.join(known)}")
    return check_source(source, data.source, data.task)


def digits() -> Source:
    """Handwritten digits: 1797 gray images of 8x8 pixels with values 0 to 16, as scikit-learn bundles them.

    From its file: ``sklearn.datasets.load_digits`` reads the same, but costs every worker two seconds of imports.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None, "a requirement"
    assert spec.submodule_search_locations is not None, "a package"
    path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    with gzip.open(path, "rt") as file:  # by itself NumPy asks for the working folder, which may be gone
        rows = np.loadtxt(file, delimiter=",")
    images, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    return Source(images.astype(np.float32), labels.astype(np.int64), tuple("0123456789"))


def read_npz(path: Path, data: Data) -> Source:
    """Arrays saved with ``numpy.savez``: x_train, y_train, and x_test, y_test if there is a test split; or x, y.

    Labels are integers from 0, or strings, and in regression numbers. An optional array ``classes`` names the classes.
    """
    arrays = _open_npz(path)
    train = ("x_train", "y_train") if "x_train" in arrays else ("x", "y")
    test = ("x_test", "y_test")
    given_test = [key for key in test if key in arrays]
    missing = [key for key in (*train, *(test if given_test else ())) if key not in arrays]
    if missing:
        raise DataError(
            f"npz:{path}: found {', '.join(arrays) or 'nothing'}; missing {missing[0]}; expects {_NPZ_KEYS}"
        )
    labels = [_flat_labels(arrays[key], f"npz:{path}: {key}") for key in (train[1], *given_test[1:])]
    targets, classes = labels, None
    if data.task == "classification":
        classes = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None
        targets, classes = _as_indices(labels, classes, f"npz:{path}")
    if not given_test:
        return Source(arrays[train[0]], targets[0], classes or ())
    return Source(arrays[train[0]], targets[0], classes or (), arrays["x_test"], targets[1])


def _open_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"npz:{path}: no such file")
    try:
        if not zipfile.is_zipfile(path) and not path.read_bytes()[:6] == b"\x93NUMPY":
            raise DataError(f"npz:{path}: found no numpy file, expected one from numpy.savez with {_NPZ_KEYS}")
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"npz:{path}: found a single array, expected a file from numpy.savez with {_NPZ_KEYS}")
        with archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"npz:{path}: cannot be read ({one_line(error)}); expected {_NPZ_KEYS}") from error


def _flat_labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{where}: found labels of shape {labels.shape}, expected (N,), one an example")
    return labels


def _as_indices(
    labels: list[np.ndarray], classes: tuple[str, ...] | None, where: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Class indices for integer or string labels; strings become the sorted (or the given) classes."""
    if labels[0].dtype.kind in "US":
        classes = classes or tuple(str(name) for name in np.unique(labels[0]))
        index = {name: position for position, name in enumerate(classes)}
        for part in labels:
            unknown = sorted({str(name) for name in part} - set(classes))
            if unknown:
                raise DataError(f"{where}: label {unknown[0]!r} is not among the classes: {', '.join(classes)}")
        return [np.array([index[str(name)] for name in part], dtype=np.int64) for part in labels], classes
    if labels[0].dtype.kind not in "iub":
        hint = "; to predict numbers, set data.task: regression" if labels[0].dtype.kind == "f" else ""
        raise DataError(
            f"{where}: found labels of type {labels[0].dtype}, expected whole numbers from 0, or strings{hint}"
        )
    if classes is None and labels[0].size:
        largest = int(labels[0].max())
        if largest >= labels[0].size:
            row = int(labels[0].argmax())
            raise DataError(
                f"{where}: found the label {largest} in row {row}, among {labels[0].size} examples; expected whole "
                "numbers from 0 to one less than the number of classes"
            )
        classes = tuple(str(number) for number in range(largest + 1))
    return labels, classes or ()


def read_folder(path: Path, data: Data) -> Source:
    """Pictures in one folder per class: ``path/CLASS/*``, or ``path/train/CLASS/*`` and ``path/test/CLASS/*``."""
    image_size = data.image_size
    if data.task == "regression":
        raise DataError(f"data.task: folder:{path} has classes, not numbers; leave data.task out")
    if not path.is_dir():
        raise DataError(f"folder:{path}: no such folder")
    parts = subfolders(path)
    if "train" not in parts or "test" not in parts:
        if "train" in parts:
            raise DataError(f"folder:{path}: found {', '.join(parts)}; expected both train/ and test/, or only classes")
        if not parts:
            raise DataError(f"folder:{path}: no sub-folders; expected one for each class")
        arrays, names, targets, classes = read_class_folders(path, image_size)
        return Source(stack_pictures(arrays, names), targets, classes)
    if len(parts) > 2:
        raise DataError(
            f"folder:{path}: found {', '.join(parts)}; expected only train/ and test/: "
            "the selection split is cut from train/ by data.validation"
        )
    arrays, names, targets, classes = read_class_folders(path / "train", image_size)
    tests, test_names, test_targets, _ = read_class_folders(path / "test", image_size, classes)
    if not arrays or not tests:
        raise DataError(f"folder:{path}: {'test' if arrays else 'train'}/ has no pictures in class folders")
    stacked = stack_pictures([*arrays, *tests], [*names, *test_names])
    return Source(stacked[: len(arrays)], targets, classes, stacked[len(arrays) :], test_targets)


def _imported(data: Data) -> Source:
    """A data set class gives its splits; any other callable is called with ``data.arguments`` for a ``Source``."""
    from torch.utils.data import Dataset

    try:
        factory = locate(data.source)
    except ImportError as error:
        raise DataError(f"data.source: {error}") from error
    if inspect.isclass(factory) and issubclass(factory, Dataset):
        from trials.data.datasets import read_dataset

        return read_dataset(factory, data)
    if not callable(factory):
        raise DataError(f"data.source: {data.source} is {type(factory).__name__}, expected a function")
    try:
        source = factory(**data.arguments)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{data.source}: raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(source, Source):
        raise DataError(f"{data.source}: returned {type(source).__name__}, expected trials.data.Source")
    return source


BUNDLED = {"digits": digits}
TABLES = {"csv": read_csv, "parquet": read_parquet}
FILES = {"npz": read_npz, "folder": read_folder, **TABLES}
