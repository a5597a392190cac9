"""A history written anew from the catalog: what the search would know had it been told all of it as it stands.

The trials are told once more to a history in memory, so that Optuna notes with each what it would have noted (which
rungs it passed, for one), and are then copied: a sampler proposes from the copy what it would have from the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from sweeper.catalog import EpochRow, TrialRow
from sweeper.errors import StoreError
from sweeper.search.distributions import distribution
from sweeper.search.histories import connected, create_history, delete_history, open_history, reaching
from sweeper.search.search import REASON, end_trial
from sweeper.space import Choice, Distribution, Label, Parameter, Space
from sweeper.study import Study
from trials.result import METRICS

FIXED = "fixed_params"
"""Where Optuna keeps the point that a trial was to start with, by which it knows not to try it again."""
INFEASIBLE = ("diverged", "infeasible")
"""The failures that are the recipe's fault."""
STATES: dict[str, TrialState] = {
    "waiting": TrialState.RUNNING,  # the search has it open: it goes on
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def rebuild(
    study: Study,
    url: str,
    name: str,
    trials: Sequence[TrialRow],
    epochs: Mapping[int, list[EpochRow]],
    told: Mapping[int, float] | None = None,
) -> None:
    """Write the history ``name`` from rows of the catalog, in place of one that may have been begun under that name.

    Args:
        study: what study.yaml says: the distributions are those of its space.
        url: the database.
        name: of the history; not that of the one in use.
        trials: all trials, by number; one that waits or runs is one that the search has open.
        epochs: trial id -> its epochs in order.
        told: trial number -> the value that the search was told, for trials that were extended since: their rows hold
            the value of today, of which the search does not hear. Left out, it is the best epoch before the extension.

    Raises:
        StoreError: numbers are missing in ``trials``, or the database cannot be reached.
    """
    for expected, trial in enumerate(trials):
        if trial.number != expected:
            raise StoreError(f"trial {expected:04d} of study {study.name!r} is missing in the catalog")
    scratch = optuna.storages.InMemoryStorage()
    with reaching(url):
        points = _queued_points(study)
        replayed = create_history(study, name, scratch)
        for row in trials:
            _replay(
                replayed,
                Known(row, epochs.get(row.id, []), study.search.metric, (told or {}).get(row.number)),
                study.space,
                {FIXED: points[row.number]} if row.number < len(points) else {},
            )
    with connected(url) as storage:
        delete_history(name, storage)
        create_history(study, name, storage).add_trials(replayed.get_trials(deepcopy=False))
        open_history(study, name, storage)


def _queued_points(study: Study) -> list[dict[str, Any]]:
    """The points to start with as Optuna queues them: each once, by the number of their trial."""
    queue = open_history(study, study.name, optuna.storages.InMemoryStorage())
    return [trial.system_attrs[FIXED] for trial in queue.get_trials(deepcopy=False)]


class Known:
    """What the search was told of a trial."""

    def __init__(self, row: TrialRow, epochs: Sequence[EpochRow], metric: str, told: float | None) -> None:
        self.row = row
        last = row.recipe["extensions"][0]["after_epochs"] if row.is_extended else row.facts.get("epochs")
        self.values = {epoch.epoch: epoch.metrics[metric] for epoch in epochs if last is None or epoch.epoch <= last}
        """By epoch; without those of extensions."""
        self.value: float | None = row.value
        """At its end, of a complete trial."""
        if row.is_extended:
            best = max if METRICS[metric] == "maximize" else min
            self.value = best(self.values.values()) if told is None else told

    @property
    def state(self) -> TrialState:
        """How it ended, if it did; that it goes on in an extension is not the search's business."""
        if self.row.is_extended:
            return TrialState.COMPLETE
        if self.row.failure in INFEASIBLE:
            return TrialState.PRUNED
        return STATES[self.row.state]


def _replay(history: optuna.Study, known: Known, space: Space, attributes: dict[str, Any]) -> None:
    """Add a trial to the history, and tell of it what was told before."""
    params, distributions = by_name(space, known.row.params)
    added = optuna.trial.create_trial(
        state=TrialState.RUNNING, params=params, distributions=distributions, system_attrs=attributes
    )
    history.add_trial(added)
    trial = optuna.Trial(history, history.get_trials(deepcopy=False)[-1]._trial_id)
    for epoch, value in known.values.items():
        trial.report(value, step=epoch)
        trial.should_prune()  # for what the pruner notes
    if known.row.state == "failed":
        trial.set_user_attr(REASON, known.row.reason)
    if known.state is not TrialState.RUNNING:
        at_end = known.value if known.state is TrialState.COMPLETE else None
        end_trial(trial, known.state, at_end, infeasible=known.row.failure in INFEASIBLE)


def by_name(space: Space, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The values and distributions of the parameters that were active where ``params``, by path, were decided.

    A choice of ranges leaves but the number that was drawn: it fell on the first option that has this number.
    """
    values: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}

    def pick(parameter: Parameter) -> Any:
        value = params[parameter.path]
        if isinstance(parameter.distribution, Choice):
            value = _label(parameter.distribution, value)
        values[parameter.name], distributions[parameter.name] = value, distribution(parameter)
        return value

    space.decide(pick)
    return values, distributions


def _label(choice: Choice, value: Any) -> Label:
    """The option that ``value`` is of."""
    for label, option in zip(choice.labels, choice.options, strict=True):
        if option.holds(value) if isinstance(option, Distribution) else label == value and type(label) is type(value):
            return label
    raise StoreError(f"found the value {value!r} in the catalog, expected {choice}: the study's space is another")
