from __future__ import annotations

import itertools

from sweeper.catalog import WeightsRow
from sweeper.rank.leaderboard import gain_of_averaging, rank


def _row(trial: int, kind: str, value: float, loss: float = 0.5) -> WeightsRow:
    return WeightsRow(trial, kind, f"{trial}/{kind}", value, {"validation.loss": loss}, 1, 1, "s")


def test_order_follows_the_direction_of_the_metric() -> None:
    rows = [_row(0, "raw", 0.2), _row(1, "raw", 0.9), _row(2, "raw", 0.5)]
    assert [row.trial for row in rank(rows, "validation.accuracy")] == [1, 2, 0]
    assert [row.trial for row in rank(rows, "validation.loss")] == [0, 2, 1]


def test_ties_do_not_depend_on_the_order_of_arrival() -> None:
    rows = [_row(3, "raw", 0.9, 0.4), _row(1, "raw", 0.9, 0.2), _row(2, "ema", 0.9, 0.4), _row(2, "raw", 0.9, 0.4)]
    for shuffled in itertools.permutations(rows):
        order = [(row.trial, row.kind) for row in rank(shuffled, "validation.accuracy")]
        assert order == [(1, "raw"), (2, "ema"), (2, "raw"), (3, "raw")]


def test_gain_is_best_average_minus_best_single() -> None:
    rows = rank(
        [_row(0, "raw", 0.90), _row(1, "raw", 0.92), _row(0, "ema", 0.95), _row(1, "best_n", 0.93)],
        "validation.accuracy",
    )
    gain = gain_of_averaging(rows, "validation.accuracy")
    assert gain is not None
    assert (gain.best_single.trial, gain.best_average.kind) == (1, "ema")
    assert abs(gain.amount - 0.03) < 1e-12


def test_a_loss_that_went_up_is_a_negative_gain() -> None:
    rows = rank([_row(0, "raw", 0.30), _row(0, "ema", 0.35)], "validation.loss")
    gain = gain_of_averaging(rows, "validation.loss")
    assert gain is not None
    assert abs(gain.amount + 0.05) < 1e-12


def test_no_average_no_gain() -> None:
    assert gain_of_averaging([_row(0, "raw", 0.3)], "validation.accuracy") is None
