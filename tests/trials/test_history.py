"""Which epochs count, on a history written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from trials.history import History
from trials.recipe import Recipe

RAW = [0.5, 0.9, 0.6, 0.7]
EMA = [0.4, 0.6, 0.95, 0.8]


def history_of(
    ema: bool = True, early_stop: dict[str, Any] | None = None, best_n: int = 0, extended_after: int | None = None
) -> History:
    recipe = Recipe.model_validate(
        {
            "data": {"source": "digits"},
            "model": {"build": "linear"},
            "train": {"epochs": 9, "ema": {} if ema else None, "early_stop": early_stop},
            "average": {"best_n": best_n},
            "extensions": [] if extended_after is None else [{"after_epochs": extended_after, "epochs": 5}],
        }
    )
    entries = []
    for raw, average in zip(RAW, EMA, strict=True):
        leading = max(raw, average) if ema else raw
        kinds = {"": leading, "raw.": raw, "ema.": average} if ema else {"": leading}
        entry = {f"validation.{kind}loss": 1 - value for kind, value in kinds.items()}
        for name in ("accuracy", "balanced_accuracy", "top5_accuracy"):
            entry |= {f"validation.{kind}{name}": value for kind, value in kinds.items()}
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


def test_another_metric_may_be_watched() -> None:
    """The loss falls as the accuracy rises: the best epoch is the same, and would be the first the wrong way round."""
    watching = history_of(ema=False, early_stop={"patience_epochs": 1, "metric": "validation.loss"})
    assert watching.watched == "validation.loss"
    assert watching.chosen_epoch == 2
    assert watching.stopped_early


def test_an_extension_begins_with_fresh_patience_and_ends_after_its_own_epochs() -> None:
    early_stop = {"patience_epochs": 2}
    assert history_of(ema=False, early_stop=early_stop).over
    extended = history_of(ema=False, early_stop=early_stop, extended_after=3)
    assert extended.recipe.epochs == 8
    assert not extended.over
    assert extended.chosen_epoch == 2, "the best of all epochs, those from before included"
    assert not history_of(ema=False, early_stop=early_stop, extended_after=4).over, "no epoch of its own yet"


def test_before_the_first_epoch_nothing_needs_saving() -> None:
    train = {"early_stop": {"patience_epochs": 1}, "ema": {"decay": 0.9}}
    content = {"data": {"source": "digits"}, "model": {"build": "mlp"}, "train": train, "average": {"best_n": 2}}
    history = History(Recipe.model_validate(content))
    assert (history.saved_epochs, history.saved_ema_epochs) == (set(), set())
