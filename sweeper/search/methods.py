"""How trials are chosen and stopped: Optuna's samplers and pruners by what study.yaml calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna

from sweeper.study import Study
from sweeper.study_file import Asha, Hyperband, Median, NoPruner, Patient


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    # `group` splits the conditional space into its branches; `constant_liar` keeps parallel workers apart.
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": _tpe,
}


class _NamedHyperband(optuna.pruners.HyperbandPruner):
    """Hyperband whose brackets follow from the study's name, whatever its history is called.

    Optuna draws a trial's bracket from the name of the history and the trial's number, so that a history written anew
    under another name would deal all trials out again.
    """

    def __init__(self, name: str, **said: int) -> None:
        super().__init__(**said)
        self._name = name

    def _get_bracket_id(self, _study: optuna.Study, trial: optuna.trial.FrozenTrial) -> int:
        return super()._get_bracket_id(_Named(self._name), trial)  # type: ignore[arg-type]  # it reads but the name


class _Named:
    def __init__(self, name: str) -> None:
        self.study_name = name


PRUNERS: dict[type, Callable[[Any, Study], optuna.pruners.BasePruner]] = {
    NoPruner: lambda _, __: optuna.pruners.NopPruner(),
    Median: lambda p, _: optuna.pruners.MedianPruner(n_startup_trials=p.startup_trials, n_warmup_steps=p.warmup_epochs),
    Asha: lambda p, _: optuna.pruners.SuccessiveHalvingPruner(min_resource=p.min_epochs, reduction_factor=p.reduction),
    Hyperband: lambda p, study: _NamedHyperband(
        study.name,
        min_resource=p.min_epochs,
        max_resource=max(study.max_epochs, p.min_epochs),
        reduction_factor=p.reduction,
    ),
    Patient: lambda p, _: optuna.pruners.PatientPruner(None, patience=p.patience_epochs, min_delta=p.min_delta),
}
