"""What an augmentation is once it is built, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from trials.data.splits import Splits
from trials.errors import DataError

Apply = Callable[[Tensor, Tensor, Generator], Tensor]
"""``(inputs, rows, generator) -> inputs``: a batch as the training split holds it (N, ...), which rows of the training
split its examples are (N,), and where random numbers come from. Same shape and dtype, on the same device; the argument
is not written to."""


def need_images(name: str, splits: Splits) -> tuple[int, ...]:
    """The shape (C, H, W) of the images. Raises ``DataError`` if the examples are something else."""
    spec = splits.preprocess.spec
    if spec.kind != "image":
        raise DataError(f"data.augment: {name} needs images, but the data has {spec.kind}; leave it out")
    return spec.shape


def need_colors(name: str, splits: Splits) -> None:
    """Raises ``DataError`` unless the examples are images in gray or in red, green and blue."""
    channels = need_images(name, splits)[0]
    if channels not in (1, 3):
        raise DataError(
            f"data.augment: {name} needs images with 1 or 3 channels, but the data has {channels}; leave it out"
        )


def uniform(count: int, low: float, high: float, generator: Generator, device: torch.device) -> Tensor:
    """Numbers (count,) between ``low`` and ``high``, float32 on ``device``, wherever the generator lives."""
    return torch.rand(count, generator=generator, device=generator.device).to(device).mul_(high - low).add_(low)


def per_image(numbers: Tensor) -> Tensor:
    """One number an image (N,), in the shape (N, 1, 1, 1) in which it meets a batch of images."""
    return numbers.view(-1, 1, 1, 1)
