"""Pad each image and cut its own size out again at a random place (arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from trials.data.augment.apply import Apply, need_images
from trials.data.augment.levels import measure_levels
from trials.data.splits import Splits
from trials.errors import DataError
from trials.recipe import RandomCrop


def random_crop(images: Tensor, padding: int, generator: Generator, black: float = 0.0) -> Tensor:
    """Pad each image with ``padding`` pixels of ``black`` on every side and cut its size out at a random place.

    ``images`` (N, C, H, W) of any dtype -> the same shape and dtype. Each of the (2 padding + 1)^2 places is equally
    likely.
    """
    count, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator, device=generator.device).to(
        images.device
    )
    padded = pad(images, (padding, padding, padding, padding), value=black)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def build_random_crop(section: RandomCrop, splits: Splits) -> Apply:
    """The crop of ``section``. Raises ``DataError`` for inputs that are no images, or too small for the padding."""
    side = min(need_images(section.name, splits)[1:])
    if section.padding >= side:
        raise DataError(
            f"data.augment: random_crop: padding: found {section.padding}, expected less than the image side, {side}"
        )
    black = measure_levels(splits).black
    return lambda images, _rows, generator: random_crop(images, section.padding, generator, black)
