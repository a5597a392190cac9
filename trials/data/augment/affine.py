"""Turn, shift, scale and shear images, each by numbers of its own (torchvision.transforms.v2 draws once a batch)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from trials.data.augment.apply import Apply, need_images, uniform
from trials.data.augment.levels import as_dtype, measure_levels
from trials.data.splits import Splits
from trials.recipe import Affine


def warp(
    images: Tensor, sources: Tensor, black: float = 0.0, mode: Literal["bilinear", "nearest"] = "bilinear"
) -> Tensor:
    """Give each pixel the value that its image (N, C, H, W) has where ``sources`` (N, 2, 3) sends the pixel.

    A row of ``sources`` is the matrix from (x, y, 1) in the result to (x, y) in the image, in pixels from the centre,
    x to the right and y down. What comes in from outside is ``black``. The same shape and dtype, on the same device.
    """
    height, width = images.shape[2:]
    # From pixels to the units of torch, in which an image reaches from -1 to 1.
    half = torch.tensor([width / 2, height / 2, 1.0], device=images.device)
    grid = affine_grid(sources * half / half[:2, None], list(images.shape), align_corners=False)
    values = images.float()
    if black:  # outside, torch puts zeros
        values = values - black
    sampled = grid_sample(values, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return as_dtype(sampled.add_(black), images.dtype)


def affine(
    images: Tensor, angles: Tensor, shifts: Tensor, factors: Tensor, shears: Tensor, black: float = 0.0
) -> Tensor:
    """Shear, scale, turn and then shift each image about its centre, with one bilinear interpolation.

    ``images`` (N, C, H, W) of any dtype; ``angles`` (N,) in degrees, clockwise; ``shifts`` (2, N) in pixels, right and
    down; ``factors`` (N,) of the size; ``shears`` (N,) in degrees along the rows. The same shape and dtype.
    """
    cosine, sine, slope = angles.deg2rad().cos(), angles.deg2rad().sin(), shears.deg2rad().tan()
    # The way back of a pixel: not shifted, turned back, made smaller, sheared back.
    linear = torch.stack([cosine - slope * sine, sine + slope * cosine, -sine, cosine], dim=1).view(-1, 2, 2)
    linear = linear / factors.view(-1, 1, 1)
    return warp(images, torch.cat([linear, -linear @ shifts.T.unsqueeze(2)], dim=2), black)


def random_affine(
    images: Tensor,
    degrees: float,
    translate: float,
    scale: float,
    shear: float,
    generator: Generator,
    black: float = 0.0,
) -> Tensor:
    """Change each image (N, C, H, W) by numbers drawn for it alone; the same shape and dtype.

    An angle within ``degrees`` to either side, shifts within ``translate`` of each side, a factor within ``scale`` of
    1, a shear along the rows within ``shear`` degrees.
    """
    (count, _, height, width), device = images.shape, images.device

    def draw(limit: float) -> Tensor:
        return uniform(count, -limit, limit, generator, device)

    angles, shifts = draw(degrees), torch.stack([draw(translate * width), draw(translate * height)])
    return affine(images, angles, shifts, draw(scale) + 1.0, draw(shear), black)


def build_affine(section: Affine, splits: Splits) -> Apply:
    """The change of ``section``. Raises ``DataError`` for inputs that are no images."""
    need_images(section.name, splits)
    black = measure_levels(splits).black
    strengths = (section.degrees, section.translate, section.scale, section.shear)
    return lambda images, _rows, generator: random_affine(images, *strengths, generator, black)
