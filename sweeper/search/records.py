"""A history as plain records: what the search was told, and what it would have been told from the catalog's rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sweeper.catalog import EpochRow, TrialRow
from sweeper.errors import StoreError
from sweeper.search.histories import connected
from sweeper.search.rebuild import INFEASIBLE, Known, by_name
from sweeper.study import Study

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
"""By any other state a trial is open: ``running``."""


@dataclass(frozen=True)
class Told:
    """What the search knows of a trial."""

    number: int
    state: str
    """``running``, ``complete``, ``pruned``, ``failed`` or ``infeasible``."""
    params: dict[str, Any]
    """By name of the parameter."""
    value: float | None
    """Of a complete trial."""
    values: dict[int, float]
    """By epoch."""


def read_history(name: str, url: str) -> list[Told] | None:
    """The trials that were asked for in the history of that name, by number; ``None`` if there is no such history.

    Raises:
        StoreError: the database cannot be reached.
    """
    with connected(url) as storage:
        ids = {found.study_name: found._study_id for found in storage.get_all_studies()}
        if name not in ids:
            return None
        trials = storage.get_all_trials(ids[name], deepcopy=False)
    return [_told(trial) for trial in trials if trial.state is not TrialState.WAITING]


def histories(name: str, url: str) -> list[str]:
    """The names of all histories of a study, in use or not.

    Raises:
        StoreError: the database cannot be reached.
    """
    ours = re.compile(re.escape(name) + r"(@\d+)?")
    with connected(url) as storage:
        return sorted(found.study_name for found in storage.get_all_studies() if ours.fullmatch(found.study_name))


def expected(study: Study, row: TrialRow, epochs: Sequence[EpochRow]) -> Told:
    """What the search should know of a trial; of one that was extended, its value is not known from the catalog.

    Raises:
        StoreError: its parameters are not of the study's space.
    """
    known = Known(row, epochs, study.search.metric, None)
    try:
        params, _ = by_name(study.space, row.params)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"its parameters in the catalog are not of the study's space ({error})") from error
    state = "infeasible" if row.failure in INFEASIBLE else STATES.get(known.state, "running")
    value = known.value if state == "complete" and not row.is_extended else None
    return Told(row.number, state, params, value, dict(known.values))


def _told(trial: FrozenTrial) -> Told:
    state = STATES.get(trial.state, "running")
    if state == "pruned" and _is_infeasible(trial.constraints):
        state = "infeasible"
    value = trial.value if state == "complete" else None
    return Told(trial.number, state, dict(trial.params), value, dict(trial.intermediate_values))


def _is_infeasible(constraints: Mapping[str, float]) -> bool:
    return any(value > 0 for value in constraints.values())
