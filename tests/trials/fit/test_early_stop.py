"""R8: when to stop and where to go back to, on series whose answers are plain."""

from __future__ import annotations

import pytest

from trials.fit.early_stop import best_epoch, should_stop
from trials.recipe import EarlyStop

ACCURACY, LOSS = "validation.accuracy", "validation.loss"


@pytest.mark.parametrize(
    ("values", "metric", "min_delta", "expected"),
    [
        ([0.5], ACCURACY, 0.0, 1),
        ([0.5, 0.7, 0.6], ACCURACY, 0.0, 2),
        ([0.5, 0.7, 0.6], LOSS, 0.0, 1),
        ([0.5, 0.7, 0.7], ACCURACY, 0.0, 2),
        ([0.50, 0.55, 0.59, 0.62], ACCURACY, 0.1, 4),  # each step is small, but the fourth is 0.12 above the first
        ([0.50, 0.55, 0.59], ACCURACY, 0.1, 1),
        ([0.50, 0.45, 0.38], LOSS, 0.1, 3),
    ],
)
def test_best_epoch(values: list[float], metric: str, min_delta: float, expected: int) -> None:
    assert best_epoch(values, metric, min_delta) == expected


def test_stops_after_patience_epochs_without_a_better_value_and_not_before() -> None:
    section = EarlyStop(patience_epochs=2)
    series = [0.5, 0.7, 0.6, 0.65, 0.9]
    assert [should_stop(series[:count], ACCURACY, section) for count in range(1, 5)] == [False, False, False, True]
    assert not should_stop([0.5, 0.7, 0.6, 0.71], ACCURACY, section)


def test_gains_within_min_delta_use_up_patience() -> None:
    series = [0.50, 0.52, 0.54]
    assert should_stop(series, ACCURACY, EarlyStop(patience_epochs=2, min_delta=0.05))
    assert not should_stop(series, ACCURACY, EarlyStop(patience_epochs=2, min_delta=0.01))
