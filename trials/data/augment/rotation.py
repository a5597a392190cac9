"""Turn images, each by an angle of its own (torchvision.transforms.v2.RandomRotation draws once a batch)."""

from __future__ import annotations

from torch import Generator, Tensor

from trials.data.augment.affine import random_affine
from trials.data.augment.apply import Apply, need_images
from trials.data.augment.levels import measure_levels
from trials.data.splits import Splits
from trials.recipe import Rotation


def random_rotation(images: Tensor, degrees: float, generator: Generator, black: float = 0.0) -> Tensor:
    """Turn each image (N, C, H, W) about its centre by an angle within ``degrees`` to either side.

    Bilinear interpolation; what comes in from outside is ``black``. The same shape and dtype.
    """
    return random_affine(images, degrees, 0.0, 0.0, 0.0, generator, black)


def build_rotation(section: Rotation, splits: Splits) -> Apply:
    """The rotation of ``section``. Raises ``DataError`` for inputs that are no images."""
    need_images(section.name, splits)
    black = measure_levels(splits).black
    return lambda images, _rows, generator: random_rotation(images, section.degrees, generator, black)
