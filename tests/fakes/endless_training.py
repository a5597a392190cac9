"""Trials that do not come to their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trials.errors import ProcessLost
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult

Report = Callable[[EpochReport], bool]
Stop = Callable[[], bool]


def never_ends(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Tells one epoch and is in the second one for ever; leaves a note when it is stopped there."""
    metrics = {"validation.accuracy": 0.5, "validation.loss": 0.5}
    report(EpochReport(epoch=1, epochs=2, metrics=metrics, seconds=0.1))
    try:
        while True:
            time.sleep(0.01)
    finally:
        (folder / "put-away").touch()


def loses_a_process(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """One of the processes that train together died."""
    raise ProcessLost("train.data_parallel: process 1 of 2 died (SIGKILL)")
