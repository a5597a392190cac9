"""Mirror images, each or not by a draw of its own (torchvision.transforms.v2 draws once a batch)."""

from __future__ import annotations

from difflib import get_close_matches

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply, need_images, per_image, uniform
from trials.data.splits import Splits
from trials.errors import DataError
from trials.recipe import HorizontalFlip, VerticalFlip

_ROWS, _COLUMNS = 2, 3


def horizontal_flip(
    images: Tensor, generator: Generator, probability: float = 0.5, may_flip: Tensor | None = None
) -> Tensor:
    """Mirror each image (N, C, H, W) left to right with ``probability``; the same shape and dtype.

    ``may_flip`` (N,) bool: images where it is false stay as they are.
    """
    return _flip(images, _COLUMNS, generator, probability, may_flip)


def vertical_flip(
    images: Tensor, generator: Generator, probability: float = 0.5, may_flip: Tensor | None = None
) -> Tensor:
    """Mirror each image (N, C, H, W) top to bottom; otherwise as :func:`horizontal_flip`."""
    return _flip(images, _ROWS, generator, probability, may_flip)


def build_horizontal_flip(section: HorizontalFlip, splits: Splits) -> Apply:
    """The flip of ``section``. Raises ``DataError`` for inputs that are no images, and for unknown classes."""
    return _build_flip(section, splits, _COLUMNS)


def build_vertical_flip(section: VerticalFlip, splits: Splits) -> Apply:
    """The flip of ``section``. Raises ``DataError`` for inputs that are no images, and for unknown classes."""
    return _build_flip(section, splits, _ROWS)


def _flip(images: Tensor, dim: int, generator: Generator, probability: float, may_flip: Tensor | None) -> Tensor:
    chosen = uniform(len(images), 0.0, 1.0, generator, images.device) < probability
    if may_flip is not None:
        chosen &= may_flip
    return torch.where(per_image(chosen), images.flip(dim), images)


def _build_flip(section: HorizontalFlip | VerticalFlip, splits: Splits, dim: int) -> Apply:
    need_images(section.name, splits)
    may_flip = _outside(section, splits)

    def apply(images: Tensor, rows: Tensor, generator: Generator) -> Tensor:
        theirs = None if may_flip is None else may_flip.to(images.device)[rows.to(images.device)]
        return _flip(images, dim, generator, section.probability, theirs)

    return apply


def _outside(section: HorizontalFlip | VerticalFlip, splits: Splits) -> Tensor | None:
    """Which rows of the training split are of none of the excepted classes; ``None`` if no class is excepted."""
    if not section.except_classes:
        return None
    where, classes = f"data.augment: {section.name}: except_classes", splits.target.classes
    if splits.target.task != "classification":
        raise DataError(f"{where}: found {section.except_classes[0]!r}, but a number is predicted; leave it out")
    for name in section.except_classes:
        if name not in classes:
            near = get_close_matches(name, classes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{where}: found {name!r}, expected one of: {', '.join(classes)}{hint}")
    indices = torch.tensor([classes.index(name) for name in section.except_classes])
    return ~torch.isin(splits.train.targets, indices.to(splits.train.targets.device))
