"""The catalog beside the search's history."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sweeper.catalog import ENDED, TrialRow
from sweeper.doctor.findings import Action, Examination, listed, name_of
from sweeper.errors import StoreError

if TYPE_CHECKING:
    from sweeper.search import Told


def check_history(seen: Examination) -> None:
    """Compare each trial with what the search knows of it.

    In an unfinished study the catalog may be ahead: a start tells the search what it missed.
    """
    from sweeper.search import histories, read_history

    row, url = seen.row, seen.settings.database_url
    found = read_history(row.history, url)
    if found is None:
        if seen.searched and not seen.runs_now:
            seen.find("study", f"Optuna has no history {row.history!r}, which the catalog names", "rewrite_history")
        return
    if not seen.runs_now:
        for name in histories(row.name, url):
            if name != row.history:
                seen.find("study", f"Optuna has a history {name!r} that nobody uses", "forget_histories")
    told = {trial.number: trial for trial in found}
    known = _known(seen)
    numbers = [trial.number for trial in seen.searched]
    # Only from all trials, each of which is understood, can a history be written anew.
    mend: Action | None = "rewrite_history" if sorted(known) == numbers == list(range(len(numbers))) else None
    _check_numbers(seen, told, mend)
    for trial in seen.settled():
        seen.checked["trials"] += 1
        if trial.number in told and trial.number in known:
            for line in _differences(seen, trial, known[trial.number], told[trial.number]):
                seen.find(name_of(trial.number), line, mend)


def _known(seen: Examination) -> dict[int, Told]:
    """What the search should know, by number; without trials whose rows make no sense."""
    from sweeper.search import expected

    known = {}
    for trial in seen.searched:
        try:
            known[trial.number] = expected(seen.study, trial, seen.epochs_of(trial))
        except StoreError as error:
            seen.find(name_of(trial.number), str(error))
    return known


def _check_numbers(seen: Examination, told: dict[int, Told], mend: Action | None) -> None:
    known = {trial.number for trial in seen.searched}
    for trial in seen.settled():
        if trial.number in known and trial.number not in told:
            seen.find(name_of(trial.number), f"{trial.state} in the catalog, missing in Optuna", mend)
    if seen.runs_now:
        return
    for number in sorted(told.keys() - known):
        # What a kill leaves between the two, and a trial that waits for its trunk; a start takes it up.
        is_begun = number == len(known) or any(trial.role == "trunk" for trial in seen.trials)
        if seen.row.state != "finished" and told[number].state == "running" and is_begun:
            continue
        seen.find(name_of(number), f"missing in the catalog, {told[number].state} in Optuna", mend)


def _differences(seen: Examination, trial: TrialRow, known: Told, told: Told) -> list[str]:
    behind = not seen.is_finished and told.state == "running" and not seen.runs_now
    lines = []
    if told.state != known.state and not (behind and trial.state in ENDED):
        lines.append(f"{known.state} in the catalog, {told.state} in Optuna")
    elif known.value is not None and not behind and not same(known.value, told.value):
        lines.append(f"value {known.value} in the catalog, {told.value} in Optuna")
    for name in sorted(known.params.keys() | told.params.keys()):
        here, there = known.params.get(name), told.params.get(name)
        if not same(here, there):
            lines.append(f"{name} is {here} in the catalog, {there} in Optuna")
    return [*lines, *_epoch_differences(known.values, told.values, behind=behind)]


def _epoch_differences(known: dict[int, float], told: dict[int, float], *, behind: bool) -> list[str]:
    missing, surplus = sorted(known.keys() - told.keys()), sorted(told.keys() - known.keys())
    lines = []
    if missing and not behind:
        lines.append(f"{listed(missing)} in the catalog, missing in Optuna")
    if surplus:
        lines.append(f"{listed(surplus)} missing in the catalog, in Optuna")
    for epoch in sorted(known.keys() & told.keys()):
        if not same(known[epoch], told[epoch]):
            lines.append(f"epoch {epoch} is {known[epoch]} in the catalog, {told[epoch]} in Optuna")
    return lines


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, as far as a database can tell: MLflow's keeps no infinity.

    >>> same(float("nan"), float("nan")), same(float("inf"), 1.7976931348623157e308), same(0.1, 0.2), same(1, 1.0)
    (True, True, False, True)
    """
    if not (isinstance(one, int | float) and isinstance(other, int | float)):
        return bool(one == other)
    return one == other or (math.isnan(one) and math.isnan(other)) or (_is_infinite(one) and _is_infinite(other))


def _is_infinite(number: float) -> bool:
    return abs(number) >= 1.797e308
