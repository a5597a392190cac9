"""What was made of weights in place of a training."""

from __future__ import annotations

from dataclasses import dataclass

from trials.fit.evaluate import accuracy_digits
from trials.result import WeightsKind


@dataclass(frozen=True)
class Assembled:
    """What was made of weights; it lies at ``TrialFolder.kept_weights(kind)``."""

    kind: WeightsKind
    notes: tuple[str, ...]
    shares: tuple[float, ...] = ()
    """Of an ensemble, in the order of its recipe's members."""


def in_digits(metric: str, value: float, count: int) -> str:
    """A value of a metric with the digits that ``count`` examples support, and one more.

    >>> in_digits("validation.accuracy", 0.98765, 360), in_digits("validation.loss", 0.0123456, 360)
    ('0.988', '0.012346')
    """
    return f"{value:.{accuracy_digits(count) + 1}f}" if metric.endswith("accuracy") else f"{value:.5g}"
