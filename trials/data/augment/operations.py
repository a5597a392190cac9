"""The operations of RandAugment and TrivialAugment, each image with an operation and a strength of its own.

They mean what they mean in torchvision.transforms.v2, which takes one strength a call: geometry takes the nearest
pixel, and what comes in from outside is black.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from trials.data.augment.affine import warp
from trials.data.augment.apply import per_image, uniform
from trials.data.augment.color_jitter import adjust
from trials.data.augment.levels import Levels

Operation = Callable[[Tensor, Tensor, Levels], Tensor]
"""``(images, strengths, levels) -> images``: raw images (N, C, H, W) and a strength for each, (N,)."""

STRENGTH_STEPS = 30
"""Steps from no strength to the largest."""


def random_operation(
    images: Tensor, strengths: Tensor, largest: dict[str, float], generator: Generator, levels: Levels
) -> Tensor:
    """Change each image (N, C, H, W) by an operation drawn for it; the same shape and dtype.

    ``strengths`` (N,) go from 0 to 1, the largest of an operation, which ``largest`` gives in the operation's unit.
    Where either sign makes sense, each is as likely.
    """
    device = images.device
    chosen = torch.randint(len(OPERATIONS), (len(images),), generator=generator, device=generator.device).to(device)
    limits = torch.tensor([largest.get(name, 0.0) for name in OPERATIONS], device=device)
    is_signed = torch.tensor([name in SIGNED for name in OPERATIONS], device=device)
    is_negative = uniform(len(images), 0.0, 1.0, generator, device) < 0.5
    signs = torch.where(is_negative & is_signed[chosen], -1.0, 1.0)
    return apply_operations(images, chosen, strengths * limits[chosen] * signs, levels)


def apply_operations(images: Tensor, chosen: Tensor, strengths: Tensor, levels: Levels) -> Tensor:
    """Change each image (N, C, H, W) by one operation; the same shape and dtype.

    ``chosen`` (N,) int64 are places in :data:`OPERATIONS`, ``strengths`` (N,) are in the unit of each operation.
    """
    changed = images.clone()
    counts = torch.bincount(chosen, minlength=len(OPERATIONS)).tolist()
    by_operation = torch.split(chosen.argsort(stable=True), counts)
    for operation, rows in zip(OPERATIONS.values(), by_operation, strict=True):
        if operation is not None and len(rows):
            changed[rows] = operation(images[rows], strengths[rows], levels)
    return changed


def _geometry(sources: Callable[[Tensor, int, int], Tensor]) -> Operation:
    """An operation that takes each pixel from where ``sources(strengths, height, width)`` says (see ``warp``)."""

    def apply(images: Tensor, strengths: Tensor, levels: Levels) -> Tensor:
        height, width = images.shape[2:]
        return warp(images, sources(strengths, height, width), levels.black, mode="nearest")

    return apply


def _color(change: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    """An operation on images from 0, black, to 1, white."""

    def apply(images: Tensor, strengths: Tensor, levels: Levels) -> Tensor:
        return levels.from_unit(change(levels.to_unit(images), strengths), images.dtype)

    return apply


def _unmoved(strengths: Tensor) -> Tensor:
    return torch.eye(2, 3, device=strengths.device).repeat(len(strengths), 1, 1)


def _shear_x(slopes: Tensor, height: int, _width: int) -> Tensor:
    """Rows slide, the first one least."""
    sources = _unmoved(slopes)
    sources[:, 0, 1], sources[:, 0, 2] = slopes, slopes * (height / 2)
    return sources


def _shear_y(slopes: Tensor, _height: int, width: int) -> Tensor:
    """Columns slide, the first one least."""
    sources = _unmoved(slopes)
    sources[:, 1, 0], sources[:, 1, 2] = slopes, slopes * (width / 2)
    return sources


def _translate_x(pixels: Tensor, _height: int, _width: int) -> Tensor:
    """To the right by whole pixels."""
    sources = _unmoved(pixels)
    sources[:, 0, 2] = -pixels.trunc()
    return sources


def _translate_y(pixels: Tensor, _height: int, _width: int) -> Tensor:
    """Down by whole pixels."""
    sources = _unmoved(pixels)
    sources[:, 1, 2] = -pixels.trunc()
    return sources


def _rotate(degrees: Tensor, _height: int, _width: int) -> Tensor:
    """Anticlockwise about the centre."""
    sources, cosine, sine = _unmoved(degrees), degrees.deg2rad().cos(), degrees.deg2rad().sin()
    sources[:, 0, 0], sources[:, 0, 1] = cosine, -sine
    sources[:, 1, 0], sources[:, 1, 1] = sine, cosine
    return sources


def _brightness(images: Tensor, strengths: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import adjust_brightness

    return adjust(images, adjust_brightness, 1.0 + strengths)


def _saturation(images: Tensor, strengths: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import adjust_saturation

    return adjust(images, adjust_saturation, 1.0 + strengths)


def _contrast(images: Tensor, strengths: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import adjust_contrast

    return adjust(images, adjust_contrast, 1.0 + strengths)


def _sharpness(images: Tensor, strengths: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import adjust_sharpness

    return adjust(images, adjust_sharpness, 1.0 + strengths)


def _posterize(images: Tensor, strengths: Tensor) -> Tensor:
    """Keep 8 bits less ``strengths``, rounded, of each value."""
    bits = per_image((8.0 - strengths).round())
    steps = bits.exp2()
    coarse = (images * steps).floor().minimum(steps - 1.0) / steps
    return torch.where(bits < 8.0, coarse, images)


def _solarize(images: Tensor, strengths: Tensor) -> Tensor:
    """Invert the brightest values: a share ``strengths`` of the range."""
    share = per_image(strengths)
    return torch.where((images >= 1.0 - share) & (share > 0.0), 1.0 - images, images)


def _auto_contrast(images: Tensor, _strengths: Tensor) -> Tensor:
    """Stretch each channel to the whole range."""
    from torchvision.transforms.v2.functional import autocontrast

    stretched: Tensor = autocontrast(images)
    return stretched


def _equalize(images: Tensor, _strengths: Tensor) -> Tensor:
    """Make all of 256 values of each channel as frequent as can be."""
    from torchvision.transforms.v2.functional import equalize

    equalized: Tensor = equalize(images)
    return equalized


OPERATIONS: dict[str, Operation | None] = {
    "identity": None,
    "shear_x": _geometry(_shear_x),
    "shear_y": _geometry(_shear_y),
    "translate_x": _geometry(_translate_x),
    "translate_y": _geometry(_translate_y),
    "rotate": _geometry(_rotate),
    "brightness": _color(_brightness),
    "saturation": _color(_saturation),
    "contrast": _color(_contrast),
    "sharpness": _color(_sharpness),
    "posterize": _color(_posterize),
    "solarize": _color(_solarize),
    "auto_contrast": _color(_auto_contrast),
    "equalize": _color(_equalize),
}
"""Units: slopes; pixels; degrees; how far from 1 the factor is; bits taken away; the share of the range inverted."""

SIGNED = (
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
)
"""The operations that go either way."""
