"""The learning curve: which trials make which point, and what is drawn."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from catalog_rows import trial_row

from sweeper.catalog import TrialRow, TrialState
from sweeper.report import learning_curve as module
from sweeper.report.learning_curve import MOST_POINTS, Point, draw, learning_curve, rows

ACCURACY, RMSE = "validation.accuracy", "validation.rmse"


def trial(fraction: float | None, value: float | None, state: TrialState = "complete", **params: Any) -> TrialRow:
    sampled = params if fraction is None else {"data.train_fraction": fraction, **params}
    return trial_row(state=state, params=sampled, value=value)


def test_a_point_a_share_with_its_best_value_first() -> None:
    trials = [trial(0.5, 0.8), trial(0.1, 0.7), trial(0.5, 0.9), trial(0.1, 0.6), trial(0.5, 0.85)]
    assert learning_curve(trials, ACCURACY) == [
        Point(0.1, 0.1, ((0.1, 0.7), (0.1, 0.6))),
        Point(0.5, 0.5, ((0.5, 0.9), (0.5, 0.85), (0.5, 0.8))),
    ]
    assert [point.best for point in learning_curve(trials, RMSE)] == [0.6, 0.8], "less is better"


def test_only_trials_that_ran_to_their_end_count() -> None:
    trials = [
        trial(0.1, 0.7),
        trial(1.0, 0.9),
        trial(0.5, 0.99, state="pruned"),
        trial(0.2, None, state="failed"),
        trial(1, 0.8, **{"train.epochs": 3}),
    ]
    assert rows(learning_curve(trials, ACCURACY)) == [("0.1", "1", "0.7000"), ("1", "2", "0.9000")]


@pytest.mark.parametrize("fractions", [[], [None, None], [0.5, 0.5]])
def test_a_study_that_did_not_vary_the_share_has_no_curve(fractions: list[float | None]) -> None:
    assert learning_curve([trial(fraction, 0.5) for fraction in fractions], ACCURACY) == []


def test_many_shares_are_gathered_by_equal_stretches_of_their_logarithm() -> None:
    """From 0.01 to 1: stretches of a fifth of a decade, here with two shares in each and the two ends."""
    places = [0.0, *(stretch + inside for stretch in range(MOST_POINTS) for inside in (0.25, 0.75)), MOST_POINTS]
    fractions = [10 ** (-2 + place / 5) for place in places]
    points = learning_curve([trial(fraction, 1.0 - fraction / 2) for fraction in fractions], RMSE)
    assert [len(point.trials) for point in points] == [3, *[2] * (MOST_POINTS - 2), 3]
    assert [point.low for point in points] == [fractions[0], *fractions[3:21:2]]
    assert [point.high for point in points] == [*fractions[2:20:2], 1.0]
    assert rows(points)[0] == ("0.01 to 0.0141", "3", "0.9929")
    assert rows(points)[-1] == ("0.708 to 1", "3", "0.5000")


def test_what_is_drawn() -> None:
    picture = draw(learning_curve([trial(0.1, 0.7), trial(0.5, 0.8), trial(0.5, 0.9)], ACCURACY), ACCURACY)
    (axes,) = picture.axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0.1, 0.7], [0.5, 0.9]]
    assert sorted(axes.collections[0].get_offsets().tolist()) == [[0.1, 0.7], [0.5, 0.8], [0.5, 0.9]]
    assert (axes.get_xscale(), axes.get_ylabel(), axes.get_xlabel()) == ("log", ACCURACY, "share of the training split")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.5"]


def test_labels_of_the_axis_keep_apart() -> None:
    point = Point(0.0195, 0.97, ((0.0195, 0.5), (0.97, 0.9)))
    ticks = module._ticks([point])
    assert ticks == pytest.approx([0.0195, 0.05, 0.1, 0.2, 0.5, 0.97])
    assert all(math.log(after / before) > 0.2 for before, after in itertools.pairwise(ticks))
