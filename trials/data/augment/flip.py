"""Mirror images, each or not by a draw of its own (torchvision.transforms.v2 draws once a batch)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply, need_images
from trials.data.splits import Splits
from trials.recipe import HorizontalFlip


def horizontal_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image (N, C, H, W) left to right with probability 1/2; the same shape and dtype."""
    heads = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
    return torch.where(heads.view(-1, 1, 1, 1), images.flip(3), images)


def build_horizontal_flip(section: HorizontalFlip, splits: Splits) -> Apply:
    """The flip of ``section``. Raises ``DataError`` for inputs that are no images."""
    need_images(section.name, splits)
    return lambda images, _rows, generator: horizontal_flip(images, generator)
