"""Which weights of a study are meant by `best`, `soup`, `ensemble`, `student` or `trial:N`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeper.catalog import TrialRow, WeightsRow
from sweeper.errors import StudyError
from sweeper.view import counted

MOST_TRIALS_NAMED = 10
"""Trials are named up to this many."""


@dataclass(frozen=True)
class Choice:
    """Weights by what makes them stand out."""

    weights: WeightsRow
    title: str
    """Such as ``the best soup``."""


def choose(ranked: Sequence[WeightsRow], trials: Mapping[int, TrialRow], what: str) -> Choice:
    """The best weights on the selection split of those that ``what`` names.

    Args:
        ranked: all the weights of the study, best first.
        trials: its trials by number.
        what: ``soup``, ``ensemble``, ``student`` or ``trial:N``.

    Raises:
        StudyError: there are none; the message lists what there is.
    """
    kind, _, number = what.partition(":")
    if kind == "trial" and number.isdecimal():
        found = [row for row in ranked if row.trial == int(number)]
        title = f"the best weights of trial {int(number)}"
    elif kind in KINDS and not number:
        found = [row for row in ranked if kind in _kinds_of(row, trials)]
        title = f"the best {kind}"
    else:
        raise StudyError(f"--what: found {what!r}, expected best, {', '.join(KINDS)} or trial:N")
    if not found:
        raise StudyError(f"--what: found {what!r}, which the study does not have; it has: {_there(ranked, trials)}")
    return Choice(found[0], title)


KINDS = ("soup", "ensemble", "student")
"""What finishing moves make."""


def _kinds_of(row: WeightsRow, trials: Mapping[int, TrialRow]) -> set[str]:
    """What a row counts as: its kind of weights, and ``student`` where an ensemble taught its trial."""
    trial = trials[row.trial]
    is_student = trial.role != "search" and trial.params.get("move") == "student"
    return {row.kind, "student"} if is_student else {row.kind}


def _there(ranked: Sequence[WeightsRow], trials: Mapping[int, TrialRow]) -> str:
    kinds = {kind for row in ranked for kind in _kinds_of(row, trials)}
    numbers = sorted({row.trial for row in ranked})
    named = [f"trial:{number}" for number in numbers[:MOST_TRIALS_NAMED]]
    more = len(numbers) - len(named)
    there = [kind for kind in KINDS if kind in kinds] + named + ([counted(more, "more trials")] if more else [])
    return ", ".join(there) or "nothing yet"
