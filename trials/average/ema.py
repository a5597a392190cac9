"""Exponential moving average of the weights (Polyak averaging; the warm-up is TensorFlow's ``num_updates``)."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trials.average.follow import Follower
from trials.recipe import Ema


def ema_decay(step: int, decay: float, warmup: bool) -> float:
    """The share a(n) of the average that is kept at step n, counted from 1.

    >>> ema_decay(1, 0.999, warmup=True) == 2 / 11
    True
    """
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


class WeightEma(Follower):
    """A copy of a model whose weights follow it: ``w_ema = (1 - a(n)) * w + a(n) * w_ema``.

    The average starts at the model's weights of now. It holds no count of its own: the caller's step number decides the
    decay, so that loading the copy's weights continues exactly.
    """

    def __init__(self, model: nn.Module, section: Ema) -> None:
        super().__init__(model)
        self.section = section

    def update(self, step: int) -> None:
        """Follow the model after its applied update number ``step``, counted from 1."""
        decay = ema_decay(step, self.section.decay, self.section.warmup)
        self.follow(get_ema_multi_avg_fn(decay), step)  # type: ignore[no-untyped-call]
