"""The real training, with something that happens when an epoch is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult


def before_report(_: EpochReport) -> None:
    """Replaced by the test, which runs in the same process."""


def train(
    recipe: Recipe, folder: Path, report: Callable[[EpochReport], bool], *, stop: Callable[[], bool]
) -> TrialResult:
    from trials.train import run_trial

    def told(epoch: EpochReport) -> bool:
        before_report(epoch)
        return report(epoch)

    return run_trial(recipe, folder, told, stop=stop)
