"""One leaderboard over all the weights kept, best first, on the selection split."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sweeper.catalog import WeightsRow
from trials.result import METRICS

AVERAGED = ("ema", "swa", "best_n")
"""Kinds of weights that are an average of several."""


@dataclass(frozen=True)
class Gain:
    """What averaging was worth on the selection split.

    ``amount`` is positive when the best average is better than the best single weights, in units of the metric.
    """

    best_single: WeightsRow
    best_average: WeightsRow
    amount: float


def rank(weights: Iterable[WeightsRow], metric: str) -> list[WeightsRow]:
    """Weights by value, best first.

    Equal values are decided by the lower ``validation.loss``, then by the earlier trial, so that the order never
    depends on which trial finished first.
    """
    sign = -1.0 if METRICS[metric] == "maximize" else 1.0
    return sorted(weights, key=lambda w: (sign * w.value, w.metrics.get("validation.loss", 0.0), w.trial, w.kind))


def leaderboard(weights: Iterable[WeightsRow], metric: str) -> list[WeightsRow]:
    """All weights that compete, best first: of a trunk, only what branched from it does."""
    return rank((row for row in weights if row.role != "trunk"), metric)


def gain_of_averaging(ranked: list[WeightsRow], metric: str) -> Gain | None:
    """The best average against the best single weights; ``None`` when one of them does not exist."""
    single = next((row for row in ranked if row.kind not in AVERAGED), None)
    average = next((row for row in ranked if row.kind in AVERAGED), None)
    if single is None or average is None:
        return None
    sign = 1.0 if METRICS[metric] == "maximize" else -1.0
    return Gain(single, average, sign * (average.value - single.value))


def figure(value: float) -> str:
    """A value of a metric with the digits that matter: four decimals, fewer for large values, more for tiny ones.

    >>> figure(0.98765), figure(-0.5), figure(12.3456), figure(50000.0), figure(0.00001234), figure(-0.0)
    ('0.9877', '-0.5000', '12.346', '50000', '1.23e-05', '0.0000')
    """
    size = abs(value)
    if 0.0 < size < 0.001:
        return f"{value:.3g}"
    decimals = 4 if size < 10.0 or not math.isfinite(size) else max(0, 4 - int(math.log10(size)))
    return f"{value + 0.0:.{decimals}f}"  # no minus before a zero
