"""What an augmentation is once it is built, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from trials.data.splits import Splits
from trials.errors import DataError

Apply = Callable[[Tensor, Tensor, Generator], Tensor]
"""``(inputs, rows, generator) -> inputs``: a batch as the training split holds it (N, ...), which rows of the training
split its examples are (N,), and where random numbers come from. Same shape and dtype, on the same device; the argument is
not written to."""


def need_images(name: str, splits: Splits) -> tuple[int, ...]:
    """The shape (C, H, W) of the images. Raises ``DataError`` if the examples are something else."""
    spec = splits.preprocess.spec
    if spec.kind != "image":
        raise DataError(f"data.augment: {name} needs images, but the data has {spec.kind}; leave it out")
    return spec.shape
