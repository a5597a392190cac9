"""Data set classes in torchvision's style, turned into whole arrays.

A class is asked for its training and its test part by the arguments that its constructors take (``train=True``,
``split="train"``) and downloads itself into ``$SWEEPER_DATA`` (default ``~/.cache/sweeper-data``).
"""

from __future__ import annotations

import contextlib
import gzip
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from trials.data.checks import Source
from trials.data.pictures import picture_array, resize_array, stack_pictures
from trials.errors import DataError
from trials.locate import one_line

if TYPE_CHECKING:
    from trials.recipe import Data

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files, gzipped."""


def data_folder() -> Path:
    """Where downloaded data lives: ``$SWEEPER_DATA``, or ``~/.cache/sweeper-data``."""
    return Path(os.environ.get("SWEEPER_DATA") or "~/.cache/sweeper-data").expanduser()


def read_dataset(cls: type, data: Data) -> Source:
    """Training and test part of a data set class. Raises ``DataError`` when it cannot be had or is not labelled."""
    accepted = accepted_arguments(cls)
    common = dict(data.arguments)
    if "root" in accepted:
        common.setdefault("root", str(data_folder()))
    train_arguments, test_choices = part_arguments(accepted, data.arguments)
    with _one_at_a_time(common.get("root")):
        train = _make(cls, data.source, accepted, common | train_arguments)
        test = None
        for arguments in test_choices:
            try:
                test = _make(cls, data.source, accepted, common | arguments)
                break
            except _NoSuchPart:
                continue
    parts = [_examples(part, data) for part in (train, test) if part is not None]
    classes: tuple[str, ...] = ()
    targets = [labels for _, labels in parts]
    if data.task == "classification":
        classes, targets = _classes(train, data.source, targets)
    if test is None:
        return Source(parts[0][0], targets[0], classes)
    return Source(parts[0][0], targets[0], classes, parts[1][0], targets[1])


def accepted_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Constructor parameters by name, looking through ``**kwargs`` into the classes below."""
    found: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in vars(owner) or owner is object:
            continue
        parameters = inspect.signature(vars(owner)["__init__"]).parameters
        named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        found = named | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def part_arguments(
    accepted: dict[str, inspect.Parameter], given: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Arguments that ask for the training part, and those to try in turn for the test part (none: it has none).

    What the user gave stays: ``split="digits"`` of EMNIST is a choice of data, not of a part.
    """
    if "train" in accepted and "train" not in given:
        return {"train": True}, [{"train": False}]
    if "split" in accepted and "split" not in given:
        default = accepted["split"].default
        train = default if isinstance(default, str) and default.startswith("train") else "train"
        return {"split": train}, [{"split": "test"}, {"split": "val"}]
    return {}, []


class _NoSuchPart(Exception):
    """The class has no part of this name."""


def _make(cls: type, name: str, accepted: dict[str, inspect.Parameter], arguments: dict[str, Any]) -> Any:
    """The data set from the files that are there, or downloaded when they are not."""
    root = Path(arguments.get("root", data_folder()))
    if cls.__name__ == "FashionMNIST":
        unpack_debian_fashion_mnist(root)
    try:
        if "download" not in accepted:
            return cls(**arguments)
        try:
            return cls(**(arguments | {"download": False}))
        except (RuntimeError, OSError):
            # Announcements of the download are no part of our own output.
            with contextlib.redirect_stdout(sys.stderr):
                return cls(**(arguments | {"download": True}))
    except TypeError as error:
        raise DataError(f"{name}: does not take these data.arguments ({one_line(error)})") from error
    except ValueError as error:
        if "argument split" in str(error):
            raise _NoSuchPart from error
        raise DataError(f"{name}: {one_line(error)}") from error
    except (RuntimeError, OSError, ImportError) as error:
        raise DataError(f"{name}: cannot be had ({one_line(error)}); {_how_to_get(cls, root)}") from error


def _how_to_get(cls: type, root: Path) -> str:
    way = f"connect to the network once, or put its files into {root} as {cls.__module__}.{cls.__name__} expects them"
    if cls.__name__ == "FashionMNIST":
        way += ", or install Debian's package dataset-fashion-mnist"
    return way + " (SWEEPER_DATA names another folder)"


def unpack_debian_fashion_mnist(root: Path) -> None:
    """Lay the four files of Debian's package out where ``torchvision.datasets.FashionMNIST`` looks for them."""
    raw = root / "FashionMNIST" / "raw"
    for packed in sorted(DEBIAN_FASHION_MNIST.glob("*-ubyte.gz")):
        target = raw / packed.stem
        if target.exists():
            continue
        raw.mkdir(parents=True, exist_ok=True)
        with gzip.open(packed) as source, tempfile.NamedTemporaryFile(dir=raw, delete=False) as whole:
            shutil.copyfileobj(source, whole)
            whole.flush()
            os.fsync(whole.fileno())
        Path(whole.name).chmod(0o644)  # temporary files are private, data is shared
        Path(whole.name).replace(target)


@contextlib.contextmanager
def _one_at_a_time(root: str | None) -> Iterator[None]:
    """Workers that start together must not download into the same files."""
    from filelock import FileLock

    if root is None:
        yield
        return
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be made ({error.strerror}); set SWEEPER_DATA to a folder that can") from error
    with FileLock(Path(root) / ".sweeper.lock"):
        yield


def _examples(dataset: Any, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and labels of a data set: its own arrays where they agree with its items, else item by item."""
    if not hasattr(dataset, "__len__"):
        raise DataError(f"{data.source}: has no length; expected a data set with a known number of examples")
    if len(dataset) == 0:
        raise DataError(f"{data.source}: found no examples")
    whole = _whole_arrays(dataset)
    if whole is not None:
        return whole
    arrays, labels = [], []
    for row in range(len(dataset)):
        try:
            array, label = _item(dataset, row)
        except Exception as error:
            raise DataError(f"{data.source}: example {row} cannot be read ({one_line(error)})") from error
        is_picture = array.ndim >= 2
        arrays.append(resize_array(array, data.image_size) if data.image_size and is_picture else array)
        labels.append(label)
    if arrays[0].ndim < 2:
        return np.stack(arrays), np.array(labels)
    return stack_pictures(arrays, [f"{data.source}: example {row}" for row in range(len(arrays))]), np.array(labels)


def _item(dataset: Any, row: int) -> tuple[np.ndarray, float]:
    """One example as (array channels last, class index or number)."""
    example, label = dataset[row]
    if isinstance(example, Image.Image):
        array = picture_array(example)
    elif isinstance(example, torch.Tensor):
        array = example.movedim(0, -1).squeeze(-1).numpy() if example.ndim == 3 else example.numpy()
    else:
        array = np.asarray(example)
    return array, float(label)


def _whole_arrays(dataset: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """``dataset.data`` with its labels, if the items at both ends and in the middle say that they are the examples."""
    labels = next((getattr(dataset, key) for key in ("targets", "labels") if hasattr(dataset, key)), None)
    if labels is None or not isinstance(getattr(dataset, "data", None), (np.ndarray, torch.Tensor)):
        return None
    inputs, labels = np.asarray(dataset.data), np.asarray(labels)
    if len(inputs) != len(dataset) or labels.shape != (len(dataset),):
        return None
    channels_last = [inputs, inputs.transpose(0, 2, 3, 1)] if inputs.ndim == 4 else [inputs]
    rows = sorted({0, len(dataset) // 2, len(dataset) - 1})
    items = [_item(dataset, row) for row in rows]
    for candidate in channels_last:
        if all(
            np.array_equal(candidate[row], item) and labels[row] == label
            for row, (item, label) in zip(rows, items, strict=True)
        ):
            return candidate, labels
    return None


def _classes(dataset: Any, name: str, labels: list[np.ndarray]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Names of the classes, and the labels by their index; classes without a training example are left out.

    Some published data sets name classes that they do not hold (EMNIST's letters start at 1).
    """
    for part in labels:
        whole = part == np.floor(part)
        if not whole.all():
            raise DataError(
                f"{name}: label {part[~whole][0]} in row {int((~whole).argmax())} is no class; "
                "to predict numbers, set data.task: regression"
            )
    labels = [part.astype(np.int64) for part in labels]
    present = np.unique(labels[0])
    names = getattr(dataset, "classes", None)
    if not isinstance(names, (list, tuple)) or present.min() < 0 or present.max() >= len(names):
        names = range(int(present.max()) + 1)
    chosen = tuple(str(names[index]) for index in present)
    if not np.isin(np.concatenate(labels), present).all():
        raise DataError(f"{type(dataset).__name__}: the test part has a class that the training part lacks")
    return chosen, [np.searchsorted(present, part) for part in labels]
