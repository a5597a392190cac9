"""Images made by hand, from which one can read off what was done to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trials.data import Split, Splits, Target
from trials.data.preprocess import ArrayPreprocess


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int = 3, height: int = 12, width: int = 9, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Images (N, C, H, W): bytes from 0 to 255, or floats from 0 to 1."""
    values = torch.randint(0, 256, (count, channels, height, width), generator=seeded(count), dtype=torch.uint8)
    return values if dtype == torch.uint8 else values.to(dtype) / 255


def unlike_images(count: int, height: int = 5, width: int = 4) -> Tensor:
    """Images (N, 2, H, W) whose pixels are all different and not zero, so that a shift can be read off."""
    return torch.arange(1, 1 + 2 * height * width).view(1, 2, height, width).repeat(count, 1, 1, 1)


def ramps(count: int, height: int, width: int) -> Tensor:
    """Images (N, 2, H, W) whose values are their own places (x, y), in pixels from the centre.

    Bilinear interpolation keeps a ramp, so that a pixel of a changed image says where it came from.
    """
    xs = torch.arange(width) + 0.5 - width / 2
    ys = torch.arange(height) + 0.5 - height / 2
    return torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)]).repeat(count, 1, 1, 1)


def sources_of(changed: Tensor) -> np.ndarray:
    """The matrices (N, 2, 3) from places in changed :func:`ramps` to places in the original, by the middle pixels."""
    _, _, height, width = changed.shape
    row, column = height // 2, width // 2
    x, y = column + 0.5 - width / 2, row + 0.5 - height / 2
    here = changed[:, :, row, column].double()
    along_x = changed[:, :, row, column + 1].double() - here
    along_y = changed[:, :, row + 1, column].double() - here
    return torch.stack([along_x, along_y, here - along_x * x - along_y * y], dim=2).numpy()


def is_uniform(values: Sequence[float] | np.ndarray, low: float, high: float) -> bool:
    """Whether a sample could be of the uniform distribution: by Kolmogorov and Smirnov, wrong once in a thousand."""
    sample = (np.sort(np.asarray(values, dtype=float)) - low) / (high - low)
    steps = np.arange(len(sample) + 1) / len(sample)
    distance = max(np.abs(steps[1:] - sample).max(), np.abs(steps[:-1] - sample).max())
    return bool(distance < 1.95 / np.sqrt(len(sample)))


def image_splits(inputs: Tensor, targets: Tensor | None = None, classes: tuple[str, ...] = ("no", "yes")) -> Splits:
    """All three splits are these images (or features); without targets, a number is predicted."""
    target = Target("regression") if targets is None else Target("classification", classes)
    split = Split(inputs, torch.zeros(len(inputs)) if targets is None else targets)
    return Splits(split, split, split, ArrayPreprocess.fit(inputs), target, digest="")
