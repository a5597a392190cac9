"""Normalisation layers by name, over features (N, C) or image maps (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from trials.recipe import Norm

MOST_GROUPS = 8


def norm_layer(name: Norm, channels: int, over: Literal["features", "maps"]) -> nn.Module:
    """The layer ``name`` for inputs with ``channels`` in dimension 1; ``none`` passes them through.

    ``batch`` (arXiv:1502.03167) takes mean and biased variance of each channel over the batch, ``layer``
    (arXiv:1607.06450) of each example over all its channels and pixels, ``group`` (arXiv:1803.08494) of each example
    over each group of channels. All but ``none`` have one gain and one shift per channel.
    """
    return NORMS[name](channels, over)


def group_count(channels: int) -> int:
    """The most groups of equal size, up to 8, into which ``channels`` divide.

    >>> group_count(32), group_count(12), group_count(7), group_count(11)
    (8, 6, 7, 1)
    """
    return max(groups for groups in range(1, MOST_GROUPS + 1) if channels % groups == 0)


def _batch(channels: int, over: str) -> nn.Module:
    return nn.BatchNorm2d(channels) if over == "maps" else nn.BatchNorm1d(channels)


def _layer(channels: int, over: str) -> nn.Module:
    # torch's LayerNorm wants its dimensions last and their sizes fixed; one group is the same for maps of any size.
    return nn.GroupNorm(1, channels) if over == "maps" else nn.LayerNorm(channels)


NORMS: dict[str, Callable[[int, str], nn.Module]] = {
    "batch": _batch,
    "layer": _layer,
    "group": lambda channels, _: nn.GroupNorm(group_count(channels), channels),
    "none": lambda _channels, _over: nn.Identity(),
}
