"""Ask, report, tell: the talk with the search while a study runs.

The sampler is built anew for every proposal, seeded from the study's seed and the trial's number, so that a restarted
study does not draw its start-up samples a second time. Whatever is told may be told again: where the database was lost
between an act and its answer, nobody knows whether it was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import StoreError
from sweeper.search.distributions import suggest
from sweeper.search.held import HeldHistory
from sweeper.search.histories import close_storage, open_history, open_storage, reaching
from sweeper.search.methods import SAMPLERS
from sweeper.settings import without_password
from sweeper.space import Parameter
from sweeper.study import Study
from trials.recipe import Recipe
from trials.seed import derive_seed

FEASIBLE = "feasible"
"""The constraint that a trial breaks which diverged, or does not fit in the memory."""
REASON = "reason"
"""The attribute that says why a trial failed."""


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number in the study, its recipe, and what was sampled for it by dotted path."""

    number: int
    recipe: Recipe
    params: dict[str, Any]


class Search:
    """The search of one study.

    Args:
        study: what study.yaml says.
        url: the database that holds the history.
        history: the name of the history there: what the catalog says.

    Raises:
        StoreError: the database cannot be reached.
    """

    def __init__(self, study: Study, url: str, history: str) -> None:
        self._study, self._url = study, url
        self._open: dict[int, optuna.Trial] = {}
        # Noted here, since only this process writes the history: each look would read all trials again.
        self._known_epochs: dict[int, set[int]] = {}
        with reaching(url):
            self._storage = open_storage(url)
            self._held = HeldHistory(self._storage)
            self._history = open_history(study, history, self._held)
            self.asked = _asked(self._trials())
            """How many trials have been asked for; those of `start_with` wait in the history until then."""

    def close(self) -> None:
        """Give the database connections back."""
        close_storage(self._storage)

    def ask(self) -> Proposal:
        """The next trial to run."""
        with reaching(self._url):
            self._history.sampler = self._sampler(self.asked)
            trial = self._history.ask()
            if trial.number != self.asked:
                # Optuna itself tries again where an answer was lost, and may leave a trial of which it says nothing.
                raise StoreError(
                    f"database {without_password(self._url)}: trial {self.asked:04d} was made, but not answered",
                    transient=True,
                )
            self.asked += 1
            self._known_epochs[trial.number] = set()
            return self._decide(trial)

    def reopen(self, number: int) -> Proposal:
        """The same proposal again, for a trial that was interrupted: what was sampled stays."""
        with reaching(self._url):
            frozen = self._trials()[number]
            self._known_epochs[number] = set(frozen.intermediate_values)
            self._history.sampler = self._sampler(number)
            return self._decide(optuna.Trial(self._history, frozen._trial_id))

    def running(self) -> list[int]:
        """Numbers of the trials that were asked for and have not ended, also those whose ``ask`` got no answer."""
        with reaching(self._url):
            self._held.refresh()
            trials = self._trials()
        self.asked = _asked(trials)
        return [trial.number for trial in trials if trial.state is TrialState.RUNNING]

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Record the value of an epoch, once; ``False`` says that the trial is hopeless."""
        trial = self._open[number]
        with reaching(self._url):
            # A continued trial tells its newest epoch again, which Optuna may know already.
            if epoch not in self._known_epochs[number]:
                trial.report(value, step=epoch)
                self._known_epochs[number].add(epoch)
            return not trial.should_prune()

    def complete(self, number: int, value: float) -> None:
        """The trial ran to its end and is worth ``value``."""
        self._end(number, TrialState.COMPLETE, value)

    def prune(self, number: int) -> None:
        """The trial was stopped as hopeless; its last report becomes its value."""
        self._end(number, TrialState.PRUNED)

    def fail(self, number: int, reason: str, *, infeasible: bool = False) -> None:
        """The trial failed; ``reason`` is kept with it.

        Args:
            number: of the trial.
            reason: why, in words.
            infeasible: the fault is the recipe's: it diverges, or not one example of it fits in the memory. The sampler
                learns from it as from a constraint that was broken, and from no value. Of other failures, which say
                nothing of the recipe, it learns nothing.
        """
        with reaching(self._url):
            trial = self._reread(number)
            if trial.state is TrialState.RUNNING:
                self._held.set_trial_user_attr(trial._trial_id, REASON, reason)
        self._end(number, TrialState.PRUNED if infeasible else TrialState.FAIL, infeasible=infeasible)

    def _end(self, number: int, state: TrialState, value: float | None = None, *, infeasible: bool = False) -> None:
        with reaching(self._url):
            trial = self._reread(number)
            if trial.state is TrialState.RUNNING:
                end_trial(optuna.Trial(self._history, trial._trial_id), state, value, infeasible=infeasible)
            elif trial.state is not state:
                raise StoreError(
                    f"trial {number:04d} of study {self._study.name!r}: found {trial.state.name} in the search's "
                    f"history, expected {state.name}; mend it with: sweeper doctor {self._study.name} --repair"
                )
        self._open.pop(number, None)

    def _trials(self) -> list[FrozenTrial]:
        return self._history.get_trials(deepcopy=False)

    def _reread(self, number: int) -> FrozenTrial:
        """A trial as it stands in the database: of an end, nobody else's memory is trusted, nor one's own."""
        return self._held.reread(self._trials()[number]._trial_id)

    def _sampler(self, number: int, *value: str) -> optuna.samplers.BaseSampler:
        seed = derive_seed(self._study.seed, "ask", number, *value) % 2**32  # numpy's RandomState takes 32 bits
        return SAMPLERS[self._study.search.sampler](seed)

    def _decide(self, trial: optuna.Trial) -> Proposal:
        def draw(parameter: Parameter) -> Any:
            # Anew for each value, since what is drawn alone follows from how much was drawn before it: of a trial that
            # a kill left with some of its values, the others are drawn as they would have been.
            if parameter.name not in trial.params:
                self._history.sampler = self._sampler(trial.number)
                _ = trial.relative_params  # those that are drawn together, once
            self._history.sampler = self._sampler(trial.number, parameter.name)
            return suggest(trial, parameter)

        decision = self._study.space.decide(draw)
        self._open[trial.number] = trial
        recipe = self._study.space.recipe(
            decision.sections,
            seed=derive_seed(self._study.seed, "trial", trial.number),
            metric=self._study.search.metric,
        )
        return Proposal(trial.number, recipe, decision.params)


def _asked(trials: list[FrozenTrial]) -> int:
    return sum(trial.state is not TrialState.WAITING for trial in trials)


def end_trial(trial: optuna.Trial, state: TrialState, value: float | None, *, infeasible: bool) -> None:
    """Tell Optuna of the end of a running trial."""
    if not infeasible:
        trial.study.tell(trial, value, state=state)
        return
    if not trial.constraints:
        trial.set_constraint(FEASIBLE, 1.0)
    # Not by `tell`, which would take the last report for its value.
    trial.storage.set_trial_state_values(trial._trial_id, state)
