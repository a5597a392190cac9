"""Blend pairs of training examples: mixup and cutmix.

Own tensor code: torchvision's versions draw from the global generator and turn labels into one-hot rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from trials.errors import DataError


@dataclass(frozen=True, eq=False)
class Mixed:
    """A blended batch. Its loss is ``lam * loss(targets_a) + (1 - lam) * loss(targets_b)``, for numbers too."""

    inputs: Tensor
    """(N, ...) as they came, blended."""
    targets_a: Tensor
    """(N,) class indices, or numbers to predict, of the examples as they came."""
    targets_b: Tensor
    """(N,) those of their partners."""
    lam: float
    """Share of ``targets_a``, 0 to 1; one for the whole batch."""


def mixup(inputs: Tensor, targets: Tensor, alpha: float, generator: Generator) -> Mixed:
    """``lam * x + (1 - lam) * x[permutation]`` with lam ~ Beta(alpha, alpha) (arXiv:1710.09412).

    ``inputs`` float (N, C, H, W) or (N, F), ``targets`` (N,) int64 or float. A generator on the CPU spares a device
    synchronisation, since lam must be known on the host.
    """
    lam = float(_host_draws(generator).beta(alpha, alpha))
    partner = _permutation(len(inputs), inputs.device, generator)
    return Mixed(inputs[partner].lerp(inputs, lam), targets, targets[partner], lam)


def cutmix(inputs: Tensor, targets: Tensor, alpha: float, generator: Generator) -> Mixed:
    """Paste one box of each image's partner over it (arXiv:1905.04899).

    ``inputs`` float (N, C, H, W), ``targets`` (N,) int64 or float. The box has sides sqrt(1 - lam) of the image's with
    lam ~ Beta(alpha, alpha), and its centre is anywhere in the image; lam is then re-computed as the share of pixels
    outside the box as clipped at the border. Raises ``DataError`` for inputs that are not images.
    """
    if inputs.ndim != 4:
        raise DataError(f"data.mix: cutmix needs images (N, C, H, W), found shape {tuple(inputs.shape)}; use mixup")
    height, width = inputs.shape[2:]
    draws = _host_draws(generator)
    side = math.sqrt(1.0 - float(draws.beta(alpha, alpha)))
    top, bottom = _clipped(int(draws.integers(height)), int(height * side), height)
    left, right = _clipped(int(draws.integers(width)), int(width * side), width)
    partner = _permutation(len(inputs), inputs.device, generator)
    mixed = inputs.clone()
    mixed[:, :, top:bottom, left:right] = inputs[:, :, top:bottom, left:right][partner]
    lam = 1.0 - (bottom - top) * (right - left) / (height * width)
    return Mixed(mixed, targets, targets[partner], lam)


def mixup_or_cutmix(inputs: Tensor, targets: Tensor, alpha: float, generator: Generator) -> Mixed:
    """One of the two for the whole batch, each as likely. Arguments as for :func:`cutmix`."""
    is_mixup = bool(torch.randint(2, (), generator=generator, device=generator.device))
    return (mixup if is_mixup else cutmix)(inputs, targets, alpha, generator)


MIXES: dict[str, Callable[[Tensor, Tensor, float, Generator], Mixed]] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "mixup_or_cutmix": mixup_or_cutmix,
}


def _host_draws(generator: Generator) -> np.random.Generator:
    """NumPy's generator seeded from torch's, which has no public Beta distribution that takes a generator."""
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return np.random.default_rng(int(seed))


def _permutation(count: int, device: torch.device, generator: Generator) -> Tensor:
    return torch.randperm(count, generator=generator, device=generator.device).to(device)


def _clipped(centre: int, length: int, limit: int) -> tuple[int, int]:
    """First and one past the last pixel of ``length`` pixels about ``centre`` that lie in [0, limit)."""
    start = centre - length // 2
    return max(start, 0), min(start + length, limit)
