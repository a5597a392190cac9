"""Trials to which everything happens that can happen to one, by their number and each time alike."""

from __future__ import annotations

from pathlib import Path

from fake_training import Report, Stop, instant

from trials.errors import Diverged, OutOfMemory, ProcessLost
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult

TOO_LARGE, LOST, DIVERGED = 0, 1, 3
"""The numbers of the trials that something happens to. All others end well, or are pruned."""


def eventful(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Ends well, but for three of the trials."""
    number, micro_batch = int(folder.name), recipe.train.micro_batch

    def report_and_fail(epoch: EpochReport) -> bool:
        if number == LOST and epoch.epoch == 2:
            raise ProcessLost("process 1 of 2 died (SIGKILL)")
        answer = report(epoch)
        if number == DIVERGED:
            raise Diverged("loss is nan")
        return answer

    if number == TOO_LARGE and (micro_batch is None or micro_batch > 32):
        raise OutOfMemory("the device is full")
    return instant(recipe, folder, report_and_fail, stop=stop)
