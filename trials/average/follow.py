"""A copy of a model that averages its weights as it trains: what EMA and SWA share."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Average = Callable[[Sequence[Tensor], Sequence[Tensor], Any], object]
"""``(averages, weights, count)``: move the averages, in place, towards the weights."""


class Follower:
    """A copy of a model, in eval mode and without gradients, that follows it.

    Float buffers (batch norm statistics) are averaged like weights; other buffers are copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        followed, leading = list(_tensors(self.model)), list(_tensors(model))
        floats = [index for index, tensor in enumerate(followed) if tensor.is_floating_point()]
        others = [index for index, tensor in enumerate(followed) if not tensor.is_floating_point()]
        self._averages, self._weights = [followed[i] for i in floats], [leading[i] for i in floats]
        self._copies, self._counters = [followed[i] for i in others], [leading[i] for i in others]

    @torch.no_grad()
    def follow(self, average: Average, count: int) -> None:
        """Take the model's weights of now into the averages; integers are copied."""
        average(self._averages, self._weights, count)
        if self._copies:
            torch._foreach_copy_(self._copies, self._counters)


def _tensors(model: nn.Module) -> itertools.chain[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
