"""Random boxes in an image, of a random area and shape: what is cut out, or blanked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import uniform

_TRIES = 10
"""Shapes drawn for each box before it is given up, as in torchvision."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """A box for each of N images, int64 (N,) each. All of it lies inside the image."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    found: Tensor
    """bool (N,): false where no shape that was drawn fits the image; the box then is the whole image."""


def draw_boxes(images: Tensor, min_area: float, max_area: float, min_ratio: float, generator: Generator) -> Boxes:
    """A box for each of ``images`` (N, C, H, W), at a place where all places are equally likely.

    The area is uniform from ``min_area`` to ``max_area`` of the image's; the ratio of width to height is drawn evenly
    in its logarithm from ``min_ratio`` to its inverse. Sides are rounded to pixels, at least one. A shape that does not
    fit is drawn again, ten times at most. (All ten at once: a loop would wait for a GPU.)
    """
    count, _, height, width = images.shape
    device, spread = images.device, -math.log(min_ratio)
    areas = uniform(_TRIES * count, min_area, max_area, generator, device) * (height * width)
    ratios = uniform(_TRIES * count, -spread, spread, generator, device).exp()
    heights = (areas / ratios).sqrt().round().clamp_(min=1.0).long().view(_TRIES, count)
    widths = (areas * ratios).sqrt().round().clamp_(min=1.0).long().view(_TRIES, count)
    fits = (heights <= height) & (widths <= width)
    found, first = fits.max(dim=0)  # the first that fits, as the first of equal entries is given
    chosen_height = torch.where(found, heights.gather(0, first[None])[0], height)
    chosen_width = torch.where(found, widths.gather(0, first[None])[0], width)
    return Boxes(
        top=_place(height - chosen_height, generator),
        left=_place(width - chosen_width, generator),
        height=chosen_height,
        width=chosen_width,
        found=found,
    )


def _place(spare: Tensor, generator: Generator) -> Tensor:
    """A whole number from 0 to ``spare`` (N,), both included."""
    share = uniform(len(spare), 0.0, 1.0, generator, spare.device)
    return (share * (spare + 1)).long().minimum(spare)
