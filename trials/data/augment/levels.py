"""Black and white of raw images, so that colours can be changed whatever range the numbers have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trials.data.splits import Splits

_IMAGES_AT_A_TIME = 4096


@dataclass(frozen=True)
class Levels:
    """The darkest and the brightest value a raw image may have: 0 and 255 for uint8."""

    black: float = 0.0
    white: float = 255.0

    def to_unit(self, images: Tensor) -> Tensor:
        """Raw images of any dtype as float32 from 0, black, to 1, white; what lies outside is moved to these."""
        return images.float().sub(self.black).div_(self.white - self.black).clamp_(0.0, 1.0)

    def from_unit(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """The inverse of :meth:`to_unit`, rounded where ``dtype`` is uint8."""
        return as_dtype(images * (self.white - self.black) + self.black, dtype)


def as_dtype(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Float images as ``dtype``; uint8 takes the nearest whole number from 0 to 255."""
    return images.round().clamp_(0.0, 255.0).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)


def measure_levels(splits: Splits) -> Levels:
    """0 and 255 for uint8 images, else the smallest and the largest value of the training split."""
    images = splits.train.inputs
    if images.dtype == torch.uint8:
        return Levels()
    black, white = (float(value) for value in images.aminmax())
    return Levels(black, white if white > black else black + 1.0)


def mean_color(splits: Splits) -> Tensor:
    """Mean of each channel over the training split, in raw units: float32 (C, 1, 1) on the split's device."""
    # The mean of each image first, which needs no double precision: the images of a training split are many numbers.
    means = [part.float().mean((2, 3)) for part in torch.split(splits.train.inputs, _IMAGES_AT_A_TIME)]
    return torch.cat(means).double().mean(0).float().view(-1, 1, 1)
