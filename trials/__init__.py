"""Train one model from one recipe: plain PyTorch, no services.

>>> from trials import Recipe, run_trial
>>> recipe = Recipe.model_validate_json('{"data": {"source": "digits"}, "model": {"build": "mlp"}}')
>>> result = run_trial(recipe, "my-trial")  # doctest: +SKIP

What needs torch is imported on first use, so that checking a recipe stays instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trials.errors import (
    DataError,
    Diverged,
    Interrupted,
    ModelError,
    NoSpace,
    OutOfMemory,
    ProcessLost,
    Pruned,
    TrialError,
)
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult, WeightsFile

if TYPE_CHECKING:
    from trials.package import load_model
    from trials.train import run_trial

__all__ = [
    "DataError",
    "Diverged",
    "EpochReport",
    "Interrupted",
    "ModelError",
    "NoSpace",
    "OutOfMemory",
    "ProcessLost",
    "Pruned",
    "Recipe",
    "TrialError",
    "TrialResult",
    "WeightsFile",
    "load_model",
    "run_trial",
]

_ON_FIRST_USE = {"run_trial": "trials.train", "load_model": "trials.package"}


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return getattr(importlib.import_module(_ON_FIRST_USE[name]), name)
    raise AttributeError(f"module 'trials' has no attribute {name!r}")
