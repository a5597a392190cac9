from __future__ import annotations

from typing import Any

import pytest
from catalog_rows import trial_row

from sweeper.catalog import TrialRow, WeightsRow
from sweeper.errors import StudyError
from sweeper.rank.choice import choose


def _row(trial: int, kind: str, value: float) -> WeightsRow:
    return WeightsRow(
        trial=trial,
        kind=kind,
        path=f"{trial}/{kind}",
        value=value,
        metrics={},
        epoch=1,
        bytes=1,
        sha256="s",
        role="search",
    )


def _trial(number: int, role: str = "search", **params: Any) -> TrialRow:
    return trial_row(number, role=role, params=params)


TRIALS = {
    trial.number: trial
    for trial in (
        _trial(0),
        _trial(3),
        _trial(100_000, "move", move="uniform_soup"),
        _trial(100_001, "move", move="greedy_soup"),
        _trial(100_002, "move", move="greedy_ensemble"),
        _trial(100_003, "move", move="student"),
        _trial(100_004, "move", move="student without teacher"),
    )
}
RANKED = [  # best first
    _row(100_002, "ensemble", 0.97),
    _row(100_004, "raw", 0.96),
    _row(3, "ema", 0.95),
    _row(100_001, "soup", 0.94),
    _row(100_003, "ema", 0.93),
    _row(100_000, "soup", 0.92),
    _row(0, "raw", 0.91),
    _row(3, "raw", 0.9),
]


@pytest.mark.parametrize(
    ("what", "found", "title"),
    [
        ("soup", (100_001, "soup"), "the best soup"),
        ("ensemble", (100_002, "ensemble"), "the best ensemble"),
        ("student", (100_003, "ema"), "the best student"),
        ("trial:3", (3, "ema"), "the best weights of trial 3"),
        ("trial:0", (0, "raw"), "the best weights of trial 0"),
    ],
)
def test_the_best_of_each_kind(what: str, found: tuple[int, str], title: str) -> None:
    choice = choose(RANKED, TRIALS, what)
    assert (choice.weights.trial, choice.weights.kind, choice.title) == (*found, title)


def test_what_is_not_there_is_answered_with_what_is() -> None:
    of_search = [row for row in RANKED if row.trial < 100_000]
    with pytest.raises(
        StudyError, match=r"^--what: found 'soup', which the study does not have; it has: trial:0, trial:3$"
    ):
        choose(of_search, TRIALS, "soup")
    with pytest.raises(
        StudyError, match=r"found 'trial:7', .* it has: soup, ensemble, student, trial:0, trial:3, trial:1"
    ):
        choose(RANKED, TRIALS, "trial:7")
    with pytest.raises(StudyError, match=r"it has: nothing yet$"):
        choose([], {}, "ensemble")


@pytest.mark.parametrize("what", ["trial", "trial:x", "trial:-1", "soup:3", "winner", ""])
def test_a_word_that_is_none_is_answered_with_those_there_are(what: str) -> None:
    with pytest.raises(
        StudyError, match=f"^--what: found '{what}', expected best, soup, ensemble, student or trial:N$"
    ):
        choose(RANKED, TRIALS, what)
