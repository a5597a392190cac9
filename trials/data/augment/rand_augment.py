"""Several random operations of one strength on each image (arXiv:1909.13719).

torchvision.transforms.v2.RandAugment, whose operations and strengths these are, draws once a batch.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply, need_colors
from trials.data.augment.levels import Levels, measure_levels
from trials.data.augment.operations import STRENGTH_STEPS, random_operation
from trials.data.splits import Splits
from trials.recipe import RandAugment

SHIFT = 150 / 331
"""The largest shift, as a share of the side: 150 pixels in the paper's images."""
LARGEST = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "rotate": 30.0,
    "brightness": 0.9,
    "saturation": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
    "posterize": 4.0,
    "solarize": 1.0,
}
"""Strength of each operation at magnitude 30; the others have none, or depend on the image's size."""


def rand_augment(
    images: Tensor, operations: int, magnitude: int, generator: Generator, levels: Levels | None = None
) -> Tensor:
    """Change each image (N, 1 or 3, H, W) by ``operations`` operations, one after another, drawn for it alone.

    ``magnitude`` goes from 0 to 30. At 0 only the operations without a strength (auto contrast, equalize) change
    anything. The same shape and dtype.
    """
    height, width = images.shape[2:]
    largest = {**LARGEST, "translate_x": SHIFT * width, "translate_y": SHIFT * height}
    strengths = torch.full((len(images),), magnitude / STRENGTH_STEPS, device=images.device)
    for _ in range(operations):
        images = random_operation(images, strengths, largest, generator, levels or Levels())
    return images


def build_rand_augment(section: RandAugment, splits: Splits) -> Apply:
    """The changes of ``section``. Raises ``DataError`` for inputs that are no images of 1 or 3 channels."""
    need_colors(section.name, splits)
    levels = measure_levels(splits)
    return lambda images, _rows, generator: rand_augment(
        images, section.operations, section.magnitude, generator, levels
    )
