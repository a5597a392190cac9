"""One random operation of a random strength on each image (arXiv:2103.10158).

torchvision.transforms.v2.TrivialAugmentWide, whose operations and strengths these are, draws once a batch.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply, need_colors
from trials.data.augment.levels import Levels, measure_levels
from trials.data.augment.operations import STRENGTH_STEPS, random_operation
from trials.data.splits import Splits
from trials.recipe import TrivialAugment

LARGEST = {
    "shear_x": 0.99,
    "shear_y": 0.99,
    "translate_x": 32.0,
    "translate_y": 32.0,
    "rotate": 135.0,
    "brightness": 0.99,
    "saturation": 0.99,
    "contrast": 0.99,
    "sharpness": 0.99,
    "posterize": 6.0,
    "solarize": 1.0,
}
"""Largest strength of each operation; the others have none."""


def trivial_augment(images: Tensor, generator: Generator, levels: Levels | None = None) -> Tensor:
    """Change each image (N, 1 or 3, H, W) by one operation, drawn for it alone; the same shape and dtype.

    Its strength is one of 31, evenly spaced from none to the largest.
    """
    count = len(images)
    steps = torch.randint(STRENGTH_STEPS + 1, (count,), generator=generator, device=generator.device)
    strengths = steps.to(images.device) / STRENGTH_STEPS
    return random_operation(images, strengths, LARGEST, generator, levels or Levels())


def build_trivial_augment(section: TrivialAugment, splits: Splits) -> Apply:
    """The changes of ``section``. Raises ``DataError`` for inputs that are no images of 1 or 3 channels."""
    need_colors(section.name, splits)
    levels = measure_levels(splits)
    return lambda images, _rows, generator: trivial_augment(images, generator, levels)
