"""What `trials` exports, and that checking a recipe loads no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import trials

SURFACE = {
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
}


def test_the_surface_is_this_list_and_all_of_it_is_there() -> None:
    assert set(trials.__all__) == SURFACE
    assert all(getattr(trials, name).__name__ == name for name in SURFACE)


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'run_trail'"):
        _ = trials.run_trail


def test_recipes_results_and_errors_load_no_torch() -> None:
    script = """
import sys
import trials.recipe, trials.result, trials.errors
from trials import Recipe, TrialError
print([name for name in ("torch", "numpy", "sklearn", "torchvision") if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"
