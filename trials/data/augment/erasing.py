"""Blank a random box of some images (arXiv:1708.04896)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply, need_images, per_image, uniform
from trials.data.augment.boxes import Boxes, draw_boxes
from trials.data.augment.levels import as_dtype, mean_color
from trials.data.splits import Splits
from trials.errors import DataError
from trials.recipe import Erasing


def erase(images: Tensor, boxes: Boxes, chosen: Tensor, color: Tensor) -> Tensor:
    """Set the box of each ``chosen`` image (N, C, H, W) to ``color`` (C, 1, 1); the same shape and dtype.

    ``chosen`` (N,) is bool. ``color`` is of the dtype of the images.
    """
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= boxes.top[:, None]) & (rows < (boxes.top + boxes.height)[:, None])
    in_columns = (columns >= boxes.left[:, None]) & (columns < (boxes.left + boxes.width)[:, None])
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :] & per_image(chosen)
    return torch.where(inside, color, images)


def random_erasing(
    images: Tensor,
    probability: float,
    min_area: float,
    max_area: float,
    min_ratio: float,
    color: Tensor,
    generator: Generator,
) -> Tensor:
    """Set a random box to ``color`` (C, 1, 1) in each image (N, C, H, W), or not, with ``probability``.

    The same shape and dtype. The area of the box is uniform from ``min_area`` to ``max_area`` of the image's, the ratio
    of its sides log-uniform from ``min_ratio`` to its inverse; an image in which no such box fits stays as it is.
    """
    chosen = uniform(len(images), 0.0, 1.0, generator, images.device) < probability
    boxes = draw_boxes(images, min_area, max_area, min_ratio, generator)
    return erase(images, boxes, chosen & boxes.found, color)


def build_erasing(section: Erasing, splits: Splits) -> Apply:
    """The erasing of ``section``. Raises ``DataError`` for inputs that are no images, and for areas the wrong way."""
    need_images(section.name, splits)
    low, high = section.min_area, section.max_area
    if high < low:
        raise DataError(f"data.augment: erasing: max_area: found {high:g}, expected at least min_area, {low:g}")
    color = as_dtype(mean_color(splits), splits.train.inputs.dtype)

    def apply(images: Tensor, _rows: Tensor, generator: Generator) -> Tensor:
        return random_erasing(
            images, section.probability, low, high, section.min_ratio, color.to(images.device), generator
        )

    return apply
