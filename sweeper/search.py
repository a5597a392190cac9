"""Ask, report, tell: what to train next, whether it goes on, and what came of it. The only module that knows Optuna.

Optuna keeps the history in its own tables (RDB storage); the sampler is built anew for every proposal, seeded from the
study's seed and the trial's number, so that a restarted study does not draw its start-up samples a second time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from sweeper.catalog.database import store_error, use_wal
from sweeper.space import Choice, Int, Log, Parameter, Uniform
from sweeper.study import Study
from sweeper.study_file import Asha, Hyperband, Median, NoPruner, Patient
from trials.recipe import Recipe
from trials.result import METRICS
from trials.seed import derive_seed


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number in the study, its recipe, and what was sampled for it by dotted path."""

    number: int
    recipe: Recipe
    params: dict[str, Any]


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    # `group` splits the conditional space into its branches; `constant_liar` keeps parallel workers apart.
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": _tpe,
}

PRUNERS: dict[type, Callable[[Any, int], optuna.pruners.BasePruner]] = {
    NoPruner: lambda _, __: optuna.pruners.NopPruner(),
    Median: lambda p, _: optuna.pruners.MedianPruner(n_startup_trials=p.startup_trials, n_warmup_steps=p.warmup_epochs),
    Asha: lambda p, _: optuna.pruners.SuccessiveHalvingPruner(min_resource=p.min_epochs, reduction_factor=p.reduction),
    Hyperband: lambda p, epochs: optuna.pruners.HyperbandPruner(
        min_resource=p.min_epochs, max_resource=max(epochs, p.min_epochs), reduction_factor=p.reduction
    ),
    Patient: lambda p, _: optuna.pruners.PatientPruner(None, patience=p.patience_epochs, min_delta=p.min_delta),
}


class Search:
    """The search of one study.

    Args:
        study: what study.yaml says.
        url: the database that holds the history.

    Raises:
        StoreError: the database cannot be reached.
    """

    def __init__(self, study: Study, url: str) -> None:
        self._study, self._url = study, url
        self._open: dict[int, optuna.Trial] = {}
        # Counted and noted here, since only this process writes the history: each look would read all trials again.
        self._known_epochs: dict[int, set[int]] = {}
        with _reaching(url):
            self._storage = _open_storage(url)
            self._history = optuna.create_study(
                study_name=study.name,
                storage=self._storage,
                direction=METRICS[study.search.metric],
                pruner=PRUNERS[type(study.search.pruner)](study.search.pruner, study.max_epochs),
                load_if_exists=True,
            )
            for point in study.start_with:
                self._history.enqueue_trial(point, skip_if_exists=True)
            states = [trial.state for trial in self._history.get_trials(deepcopy=False)]
        self.asked = len(states) - states.count(TrialState.WAITING)
        """How many trials have been asked for; those of `start_with` wait in the history until then."""

    def close(self) -> None:
        """Give the database connections back."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def ask(self) -> Proposal:
        """The next trial to run."""
        with _reaching(self._url):
            self._history.sampler = self._sampler(self.asked)
            trial = self._history.ask()
            self.asked += 1
            self._known_epochs[trial.number] = set()
            return self._decide(trial)

    def reopen(self, number: int) -> Proposal:
        """The same proposal again, for a trial that was interrupted: what was sampled stays."""
        with _reaching(self._url):
            frozen = self._history.get_trials(deepcopy=False)[number]
            self._known_epochs[number] = set(frozen.intermediate_values)
            self._history.sampler = self._sampler(number)
            return self._decide(optuna.Trial(self._history, frozen._trial_id))

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = derive_seed(self._study.seed, "ask", number) % 2**32  # numpy's RandomState takes 32 bits
        return SAMPLERS[self._study.search.sampler](seed)

    def _decide(self, trial: optuna.Trial) -> Proposal:
        decision = self._study.space.decide(lambda parameter: _suggest(trial, parameter))
        self._open[trial.number] = trial
        recipe = self._study.space.recipe(
            decision.sections,
            seed=derive_seed(self._study.seed, "trial", trial.number),
            metric=self._study.search.metric,
        )
        return Proposal(trial.number, recipe, decision.params)

    def running(self) -> list[int]:
        """Numbers of the trials that were asked for and have not ended."""
        with _reaching(self._url):
            return [t.number for t in self._history.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Record the value of an epoch, once; ``False`` says that the trial is hopeless."""
        trial = self._open[number]
        with _reaching(self._url):
            # A continued trial tells its newest epoch again, which Optuna may know already.
            if epoch not in self._known_epochs[number]:
                trial.report(value, step=epoch)
                self._known_epochs[number].add(epoch)
            return not trial.should_prune()

    def complete(self, number: int, value: float) -> None:
        """The trial ran to its end and is worth ``value``."""
        with _reaching(self._url):
            self._history.tell(self._open.pop(number), value)

    def prune(self, number: int) -> None:
        """The trial was stopped as hopeless; its last report becomes its value."""
        with _reaching(self._url):
            self._history.tell(self._open.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The trial failed; ``reason`` is kept with it."""
        trial = self._open.pop(number)
        with _reaching(self._url):
            trial.set_user_attr("reason", reason)
            self._history.tell(trial, state=TrialState.FAIL)


def forget(name: str, url: str) -> None:
    """Remove the history of a study, if there is one.

    Raises:
        StoreError: the database cannot be reached.
    """
    with _reaching(url):
        storage = _open_storage(url)
        with suppress(KeyError):
            optuna.delete_study(study_name=name, storage=storage)
        storage.remove_session()
        storage.engine.dispose()


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    if url.startswith("sqlite"):
        sa.event.listen(storage.engine, "connect", use_wal)
        storage.engine.dispose()  # connections made before the listener lack its settings
    return storage


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    match parameter.distribution:
        case Uniform(low, high):
            return trial.suggest_float(parameter.name, low, high)
        case Log(low, high):
            return trial.suggest_float(parameter.name, low, high, log=True)
        case Int(low, high, step, log):
            return trial.suggest_int(parameter.name, low, high, step=step, log=log)
        case Choice() as choice:
            return trial.suggest_categorical(parameter.name, choice.labels)
    raise TypeError(f"unknown distribution {parameter.distribution!r} of {parameter.name}")


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """A stretch of talk with Optuna: its faults as ours, and without its remarks.

    `group` and `constant_liar` are marked experimental; saying so at each proposal helps nobody.
    """
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        try:
            yield
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise store_error(url, error) from error


optuna.logging.set_verbosity(optuna.logging.ERROR)
