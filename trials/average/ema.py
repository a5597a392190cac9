"""Exponential moving average of the weights (Polyak averaging; the warm-up is TensorFlow's ``num_updates``)."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trials.recipe import Ema


def ema_decay(step: int, decay: float, warmup: bool) -> float:
    """The share a(n) of the average that is kept at step n, counted from 1.

    >>> ema_decay(1, 0.999, warmup=True) == 2 / 11
    True
    """
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


class WeightEma:
    """A copy of a model whose weights follow it: ``w_ema = (1 - a(n)) * w + a(n) * w_ema``.

    Float buffers (batch norm statistics) are averaged like weights; other buffers are copied. The average starts
    at the model's weights of now. It holds no count of its own: the caller's step number decides the decay, so that
    loading the copy's weights continues exactly.
    """

    def __init__(self, model: nn.Module, section: Ema) -> None:
        self.section = section
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        followed, leading = list(_tensors(self.model)), list(_tensors(model))
        floats = [index for index, tensor in enumerate(followed) if tensor.is_floating_point()]
        others = [index for index, tensor in enumerate(followed) if not tensor.is_floating_point()]
        self._averages, self._weights = [followed[i] for i in floats], [leading[i] for i in floats]
        self._copies, self._counters = [followed[i] for i in others], [leading[i] for i in others]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after its applied update number ``step``, counted from 1."""
        decay = ema_decay(step, self.section.decay, self.section.warmup)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(self._averages, self._weights, step)
        if self._copies:
            torch._foreach_copy_(self._copies, self._counters)


def _tensors(model: nn.Module) -> itertools.chain[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
