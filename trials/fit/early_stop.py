"""Early stopping: a pure function of the values so far, so that a continued trial decides as an unbroken one."""

from __future__ import annotations

from collections.abc import Sequence

from trials.recipe import EarlyStop
from trials.result import is_better


def best_epoch(values: Sequence[float], metric: str, min_delta: float = 0.0) -> int:
    """The epoch (from 1) with the best of ``values``, where only a gain above ``min_delta`` counts as better.

    >>> best_epoch([0.5, 0.7, 0.7, 0.6], "validation.accuracy")
    2
    """
    best = 0
    for index, value in enumerate(values):
        if is_better(metric, value, than=values[best], min_delta=min_delta):
            best = index
    return best + 1


def should_stop(values: Sequence[float], metric: str, section: EarlyStop) -> bool:
    """Whether ``patience_epochs`` epochs have passed since the best of ``values``, one value an epoch."""
    return bool(values) and len(values) - best_epoch(values, metric, section.min_delta) >= section.patience_epochs
