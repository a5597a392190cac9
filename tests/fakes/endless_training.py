"""Trials that do not come to their end."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from pathlib import Path

from trials.checkpoint import TrialFolder
from trials.errors import Diverged, Interrupted, NoSpace, OutOfMemory, ProcessLost, TrialError
from trials.nodes import Nodes
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult

Report = Callable[[EpochReport], bool]
Stop = Callable[[], bool]

FIRST = EpochReport(epoch=1, epochs=2, metrics={"validation.accuracy": 0.5, "validation.loss": 0.5}, seconds=0.1)


def never_ends(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Tells one epoch and is in the second one for ever; leaves a note when it is stopped there."""
    report(FIRST)
    try:
        while True:
            time.sleep(0.01)
    finally:
        (folder / "put-away").touch()


def loses_a_process(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """One of the processes that train together died."""
    raise ProcessLost("train.data_parallel: process 1 of 2 died (SIGKILL)")


def loses_its_last_process(recipe: Recipe, folder: Path, report: Report, *, stop: Stop, nodes: Nodes) -> TrialResult:
    """The last of those that the nodes have died."""
    raise ProcessLost(f"process {nodes.processes - 1} of {nodes.processes} on {nodes.count} node(s) died")


def until_asked(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Tells one epoch and is in the second one until it is asked to save."""
    report(FIRST)
    (folder / "in-epoch-2").touch()
    while not stop():
        time.sleep(0.001)
    raise Interrupted(2, 7)


def hangs(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Tells one epoch, and then nothing more, whatever it is asked, while it keeps its folder."""
    with TrialFolder(folder).owned(patience_seconds=10):
        report(FIRST)
        while True:
            time.sleep(0.01)


def diverges(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """The loss is no number."""
    raise Diverged("loss is nan at epoch 1, step 3")


def fills_the_disk(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Nothing more can be written."""
    raise NoSpace(f"{folder}: No space left on device; make room, then start again")


def does_not_fit_the_data(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """A fault of no special kind."""
    raise TrialError("model.build: linear takes no images")


class Model:
    """Something large."""

    error: Exception | None = None


LAST: list[weakref.ref[Model]] = []
"""What the newest trial that ran out of memory had held."""


def needs_too_much(recipe: Recipe, folder: Path, report: Report, *, stop: Stop) -> TrialResult:
    """Runs out of memory while error, frame and model refer to each other."""
    model = Model()
    LAST[:] = [weakref.ref(model)]
    try:
        raise MemoryError
    except MemoryError as error:
        model.error = error
        raise OutOfMemory("cpu: not enough memory") from error
