"""Change brightness, contrast, saturation and hue, each image by numbers of its own.

torchvision.transforms.v2.ColorJitter draws once a batch, and in random order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from trials.data.augment.apply import Apply, need_colors, per_image, uniform
from trials.data.augment.levels import Levels, measure_levels
from trials.data.splits import Splits
from trials.recipe import ColorJitter


def adjust(images: Tensor, operation: Callable[[Tensor, float], Tensor], factors: Tensor) -> Tensor:
    """One of torchvision's ``adjust_...`` operations with a factor for each image.

    ``images`` float (N, C, H, W) from 0 to 1; ``factors`` (N,), not negative. Each of these operations goes along the
    line from what factor 0 makes of an image (black, gray, blurred), through the image at 1, and beyond.
    """
    return operation(images, 0.0).lerp(images, per_image(factors)).clamp_(0.0, 1.0)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour wheel of each image, in hue, saturation and value (A. R. Smith, SIGGRAPH 1978).

    ``images`` float (N, 3, H, W) from 0 to 1; ``turns`` (N,) as shares of a whole turn: 1/3 makes green of red.
    """
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    red, green, blue = images.unbind(1)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2.0, (red - green) / divisor + 4.0),
    )
    sixths = (hue + 6.0 * turns.view(-1, 1, 1)).unsqueeze(1)
    # A channel is at its full value within a sixth of its own hue, at its least beyond a third, and slopes in between.
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(3, 1, 1)
    place = (sixths + offset).remainder_(6.0)
    lack = place.minimum(4.0 - place).clamp_(0.0, 1.0)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * lack


def color_jitter(
    images: Tensor,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    generator: Generator,
    levels: Levels | None = None,
) -> Tensor:
    """Change the colours of each image (N, 1 or 3, H, W) by numbers drawn for it alone; the same shape and dtype.

    In this order; factors are uniform from max(0, 1 - strength) to 1 + strength, the hue turns within ``hue`` of a
    whole turn to either side. A strength of 0 draws and changes nothing; gray images have no saturation and hue.
    """
    from torchvision.transforms.v2 import functional

    levels = levels or Levels()
    strengths = {functional.adjust_brightness: brightness, functional.adjust_contrast: contrast}
    if images.shape[1] == 3:
        strengths[functional.adjust_saturation] = saturation
    else:
        hue = 0.0
    if not any(strengths.values()) and not hue:
        return images
    unit = levels.to_unit(images)
    for operation, strength in strengths.items():
        if strength:
            factors = uniform(len(images), max(0.0, 1.0 - strength), 1.0 + strength, generator, images.device)
            unit = adjust(unit, operation, factors)
    if hue:
        unit = turn_hue(unit, uniform(len(images), -hue, hue, generator, images.device))
    return levels.from_unit(unit, images.dtype)


def build_color_jitter(section: ColorJitter, splits: Splits) -> Apply:
    """The changes of ``section``. Raises ``DataError`` for inputs that are no images of 1 or 3 channels."""
    need_colors(section.name, splits)
    levels = measure_levels(splits)
    strengths = (section.brightness, section.contrast, section.saturation, section.hue)
    return lambda images, _rows, generator: color_jitter(images, *strengths, generator, levels)
