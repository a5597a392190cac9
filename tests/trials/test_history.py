"""Which epochs count, on a history written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from trials.history import History
from trials.recipe import Recipe

RAW = [0.5, 0.9, 0.6, 0.7]
EMA = [0.4, 0.6, 0.95, 0.8]


def history_of(ema: bool = True, early_stop: dict[str, Any] | None = None, best_n: int = 0) -> History:
    recipe = Recipe.model_validate(
        {
            "data": {"source": "digits"},
            "model": {"build": "linear"},
            "train": {"epochs": 9, "ema": {} if ema else None, "early_stop": early_stop},
            "average": {"best_n": best_n},
        }
    )
    entries = []
    for raw, average in zip(RAW, EMA, strict=True):
        leading = max(raw, average) if ema else raw
        entry = {"validation.accuracy": leading, "validation.loss": 1 - leading}
        if ema:
            entry |= {"validation.raw.accuracy": raw, "validation.raw.loss": 1 - raw}
            entry |= {"validation.ema.accuracy": average, "validation.ema.loss": 1 - average}
        entries.append(entry)
    return History(recipe, entries)


def test_without_early_stopping_the_last_epoch_counts() -> None:
    assert history_of().chosen_epoch == 4
    assert not history_of().over
    assert history_of().saved_epochs == set()


@pytest.mark.parametrize(("ema", "best"), [(True, 3), (False, 2)])
def test_early_stopping_watches_the_leading_weights_and_saves_their_epoch(ema: bool, best: int) -> None:
    patient = history_of(ema, early_stop={"patience_epochs": 3})
    assert patient.chosen_epoch == best
    assert patient.saved_epochs == {best}
    assert patient.saved_ema_epochs == ({best} if ema else set())
    assert not patient.stopped_early
    assert history_of(ema, early_stop={"patience_epochs": 4 - best}).over


def test_raw_weights_are_averaged_by_their_own_values_not_by_those_of_the_leader() -> None:
    assert history_of(best_n=2).averaged_epochs == (2, 4)
    assert history_of(best_n=2, early_stop={"patience_epochs": 3}).saved_epochs == {2, 3, 4}


@pytest.mark.parametrize("best_n", [0, 1])
def test_one_epoch_is_no_average(best_n: int) -> None:
    assert history_of(best_n=best_n).averaged_epochs == ()
