"""Optuna's tables with the history in memory beside them: written there first, read from here.

Optuna's own storage reads each trial that has not ended again, with all its epochs, at every look, since other
processes may have written to it; a proposal looks dozens of times. But a study has one orchestrator, which alone writes
its history: what it has written it knows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState


class HeldHistory(_CachedStorage):
    """A database of histories whose trials are read once, and then known from what is written.

    Where a write failed nobody knows whether it was done: the next look reads again what may have changed.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._known: set[int] = set()
        """The ids of histories whose trials in memory are those in the database."""

    def refresh(self) -> None:
        """Let the next look read again what may have changed: another process may have written."""
        self._known.clear()

    def reread(self, trial_id: int) -> FrozenTrial:
        """One trial as it stands in the database."""
        trial = self._backend.get_trial(trial_id)
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        self._studies[study_id].trials[number] = trial
        return trial

    def get_trial(self, trial_id: int) -> FrozenTrial:
        found = self._trial_id_to_study_id_and_number.get(trial_id)
        if found is None or found[0] not in self._known:
            return super().get_trial(trial_id)
        return self._studies[found[0]].trials[found[1]]

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._unknown_if_lost(study_id):
            return super().create_new_trial(study_id, template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._changed(trial_id) as trial:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
            trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._changed(trial_id) as trial:
            if not super().set_trial_state_values(trial_id, state, values):
                return False  # another process has begun it
            trial.state = state
            if values is not None:
                trial.values = list(values)
            if state is TrialState.RUNNING:
                trial.datetime_start = datetime.now()
            if state.is_finished():
                trial.datetime_complete = datetime.now()
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._changed(trial_id) as trial:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changed(trial_id) as trial:
            super().set_trial_user_attr(trial_id, key, value)
            trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changed(trial_id) as trial:
            super().set_trial_system_attr(trial_id, key, value)
            trial.system_attrs = {**trial.system_attrs, key: value}

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if study_id not in self._known:
            super()._read_trials_from_remote_storage(study_id)
            self._known.add(study_id)

    @contextmanager
    def _changed(self, trial_id: int) -> Iterator[FrozenTrial]:
        """A copy of a trial to be changed, which takes its place once the change is written.

        A copy, because whoever asked for the trials earlier has the trial itself.
        """
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        changed = copy.copy(self._studies[study_id].trials[number])
        with self._unknown_if_lost(study_id):
            yield changed
            self._studies[study_id].trials[number] = changed

    @contextmanager
    def _unknown_if_lost(self, study_id: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._known.discard(study_id)
            raise
