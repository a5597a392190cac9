"""Random changes to training images, drawn anew for each example of a batch.

Own tensor code: torchvision's random transforms draw once a batch and from the global generator. Works on whichever
device the images are; the draws come from the passed generator, wherever that lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from trials.recipe import Data


def random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Pad each image with ``padding`` zeros on every side and cut its size out again at a random place.

    ``images`` (N, C, H, W) of any dtype -> the same shape and dtype. Each of the (2 padding + 1)^2 places is equally
    likely (arXiv:1512.03385, section 4.2).
    """
    count, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator, device=generator.device).to(
        images.device
    )
    windows = pad(images, (padding, padding, padding, padding)).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def horizontal_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image (N, C, H, W) left to right with probability 1/2; the same shape and dtype."""
    heads = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
    return torch.where(heads.view(-1, 1, 1, 1), images.flip(3), images)


AUGMENTS: dict[str, Callable[[Tensor, Data, Generator], Tensor]] = {
    "random_crop": lambda images, data, generator: random_crop(images, data.crop_padding, generator),
    "horizontal_flip": lambda images, _data, generator: horizontal_flip(images, generator),
}


def augment(images: Tensor, data: Data, generator: Generator) -> Tensor:
    """Apply ``data.augment`` in its order to raw or normalised images (N, C, H, W).

    Zero padding is black on raw images and the mean colour on normalised ones.
    """
    for name in data.augment:
        images = AUGMENTS[name](images, data, generator)
    return images
