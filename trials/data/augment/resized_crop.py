"""Cut a random part out of each image and resize it to the whole (arXiv:1409.4842)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from trials.data.augment.apply import Apply, need_images
from trials.data.augment.boxes import Boxes, draw_boxes
from trials.data.augment.levels import as_dtype
from trials.data.splits import Splits
from trials.recipe import RandomResizedCrop


def resized_crop(images: Tensor, boxes: Boxes) -> Tensor:
    """Resize each image's box to the size of the image, by bilinear interpolation.

    ``images`` (N, C, H, W) of any dtype -> the same shape and dtype. Nothing from outside a box is seen in it.
    """
    height, width = images.shape[2:]
    rows = _sources(boxes.top, boxes.height, height)
    columns = _sources(boxes.left, boxes.width, width)
    grid = torch.stack([columns[:, None, :].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)], dim=3)
    sampled = grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return as_dtype(sampled, images.dtype)


def random_resized_crop(images: Tensor, min_area: float, min_ratio: float, generator: Generator) -> Tensor:
    """Cut a random box out of each image (N, C, H, W) and resize it to the whole; the same shape and dtype.

    The area is uniform from ``min_area`` to 1, the ratio of the sides log-uniform from ``min_ratio`` to its inverse; an
    image in which no shape fits stays whole.
    """
    return resized_crop(images, draw_boxes(images, min_area, 1.0, min_ratio, generator))


def build_random_resized_crop(section: RandomResizedCrop, splits: Splits) -> Apply:
    """The crop of ``section``. Raises ``DataError`` for inputs that are no images."""
    need_images(section.name, splits)
    return lambda images, _rows, generator: random_resized_crop(images, section.min_area, section.min_ratio, generator)


def _sources(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Where in its image each of ``side`` pixels of a resized box comes from: (N, side), in torch's units (-1 to 1)."""
    steps = (torch.arange(side, device=start.device) + 0.5) / side
    inside = (steps * length[:, None]).clamp(min=0.5).minimum(length[:, None] - 0.5)
    return (start[:, None] + inside) * (2.0 / side) - 1.0
