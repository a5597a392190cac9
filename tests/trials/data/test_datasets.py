"""Data set classes, with a small real twin of a downloadable one instead of the network."""

import gzip
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from trials.data import Source, load_source
from trials.data import datasets as module
from trials.data.datasets import accepted_arguments, part_arguments
from trials.errors import DataError
from trials.recipe import Data


class Published(Dataset[Any]):
    """Downloads 3x2 pixel pictures with values rows * 10 (+ 1 in the test part); keeps them channels first."""

    network = True
    classes = ("never", "one", "two")

    def __init__(self, root: str, train: bool = True, download: bool = False, rows: int = 4) -> None:
        file = Path(root) / "here"
        if download:
            if not self.network:
                raise URLError("no route to host")
            file.touch()
        if not file.exists():
            raise RuntimeError("not found; use download=True")
        values = (10 * np.arange(rows) + (0 if train else 1)).astype(np.uint8)
        self.data = np.tile(values[:, None, None, None], (1, 3, 2, 3))
        self.labels = 1 + np.arange(rows) % 2

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data[row].transpose(1, 2, 0)), int(self.labels[row])


class ItemByItem(Published):
    """`data` is not what the items are, so the items count."""

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data[row].transpose(1, 2, 0) + 5), int(self.labels[row])


class NamedParts(Dataset[Any]):
    """Asked for by `split`, which must be trainval, or val for held-out examples; tensors, channels first."""

    def __init__(self, split: str = "trainval") -> None:
        if split not in ("trainval", "val"):
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {{'trainval', 'val'}}.")
        self.value = 1.0 if split == "trainval" else 2.0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        if row > 1:
            raise IndexError
        return torch.full((3, 2, 4), self.value + row), row


class Measured(Dataset[Any]):
    """Row numbers to predict, and half of them."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> tuple[torch.Tensor, float]:
        return torch.tensor([float(row)]), row / 2


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Published, "network", True)
    return tmp_path / "data"


def load(cls: type, **fields: Any) -> Source:
    return module_source(f"{__name__}:{cls.__name__}", **fields)


def module_source(source: str, **fields: Any) -> Source:
    return load_source(Data(source=source, **fields))


@pytest.mark.parametrize(("cls", "added"), [(Published, 0), (ItemByItem, 5)])
def test_train_and_test_are_downloaded_and_channels_come_last(root: Path, cls: type, added: int) -> None:
    source = load(cls)
    assert (root / "here").exists()
    expected = np.array([0, 10, 20, 30]) + added
    assert source.inputs.shape == (4, 2, 3, 3)
    np.testing.assert_array_equal(source.inputs[:, 0, 0, 0], expected)
    assert source.test_inputs is not None
    np.testing.assert_array_equal(source.test_inputs[:, 1, 2, 2], expected + 1)


def test_a_named_class_without_examples_is_left_out(root: Path) -> None:
    source = load(Published)
    assert source.classes == ("one", "two")
    np.testing.assert_array_equal(source.targets, [0, 1, 0, 1])


def test_arguments_reach_the_constructor(root: Path) -> None:
    assert len(load(Published, arguments={"rows": 6}).inputs) == 6
    with pytest.raises(DataError, match=r"does not take these data.arguments \(.*'lines'\)"):
        load(Published, arguments={"lines": 6})


def test_offline_is_one_line_that_says_how_to_get_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Published, "network", False)
    with pytest.raises(DataError, match=r"cannot be had .*no route to host.*connect to the network") as caught:
        load(Published)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)
    root.mkdir(exist_ok=True)
    (root / "here").touch()  # what is there already needs no network
    assert len(load(Published).inputs) == 4


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match=r"/file/data: cannot be made \(Not a directory\); set SWEEPER_DATA"):
        load(Published)


def test_parts_by_name_fall_back_to_what_there_is() -> None:
    source = load(NamedParts)
    np.testing.assert_array_equal(source.inputs[:, 0, 0, 0], [1.0, 2.0])
    assert source.inputs.shape == (2, 2, 4, 3)
    assert source.test_inputs is not None
    np.testing.assert_array_equal(source.test_inputs[:, 0, 0, 0], [2.0, 3.0])
    assert load(NamedParts, arguments={"split": "trainval"}).test_inputs is None


def test_numbers_to_predict_are_not_cut_to_whole_ones() -> None:
    source = load(Measured, task="regression")
    assert source.inputs.tolist() == [[0], [1], [2], [3]]
    assert source.targets.tolist() == [0, 0.5, 1, 1.5]
    with pytest.raises(DataError, match=r"Measured: label 0.5 in row 1 is no class; .* set data.task: regression"):
        load(Measured)


def test_constructor_arguments_are_seen_through_keyword_arguments() -> None:
    class Child(Published):
        def __init__(self, root: str, split: str, **kwargs: Any) -> None:
            super().__init__(root, **kwargs)

    accepted = accepted_arguments(Child)
    assert {"root", "split", "train", "download", "rows"} <= set(accepted)
    assert part_arguments(accepted, {"split": "letters"}) == ({"train": True}, [{"train": False}])


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.tobytes())


def test_fashion_mnist_is_taken_from_debians_package(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian = tmp_path / "debian"
    debian.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = (np.arange(20) % 10).astype(np.uint8)
    for part, flip in (("train", 0), ("t10k", 255)):
        write_idx(debian / f"{part}-images-idx3-ubyte.gz", pixels ^ flip)
        write_idx(debian / f"{part}-labels-idx1-ubyte.gz", labels)
    monkeypatch.setattr(module, "DEBIAN_FASHION_MNIST", debian)
    source = module_source("torchvision.datasets:FashionMNIST")
    np.testing.assert_array_equal(source.inputs, pixels)
    np.testing.assert_array_equal(source.test_inputs, pixels ^ 255)
    np.testing.assert_array_equal(source.targets, labels)
    assert source.classes[0] == "T-shirt/top"
    assert sorted(path.name for path in (root / "FashionMNIST" / "raw").iterdir()) == [
        f"{part}-{kind}-ubyte" for part in ("t10k", "train") for kind in ("images-idx3", "labels-idx1")
    ]


def test_a_torchvision_class_without_parts_is_all_training() -> None:
    arguments = {"size": 12, "image_size": [3, 6, 8], "num_classes": 2}
    source = module_source("torchvision.datasets:FakeData", arguments=arguments)
    assert source.inputs.shape == (12, 6, 8, 3)
    assert source.test_inputs is None
    assert module_source("torchvision.datasets:FakeData", arguments=arguments, image_size=4).inputs.shape == (
        12,
        4,
        4,
        3,
    )
