"""The parameters of a space in Optuna's terms."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeper.space import Choice, Int, Log, Parameter, Uniform


def distribution(parameter: Parameter) -> BaseDistribution:
    """What a parameter is drawn from."""
    match parameter.distribution:
        case Uniform(low, high):
            return FloatDistribution(low, high)
        case Log(low, high):
            return FloatDistribution(low, high, log=True)
        case Int(low, high, step, log):
            return IntDistribution(low, high, log=log, step=step)
        case Choice() as choice:
            return CategoricalDistribution(choice.labels)
    raise TypeError(f"unknown distribution {parameter.distribution!r} of {parameter.name}")


def suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    """The value of a parameter in a trial, drawn now if it has none."""
    name = parameter.name
    match distribution(parameter):
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"unknown distribution of {name}")
