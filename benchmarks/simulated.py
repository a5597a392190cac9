"""Workers that train nothing: they speak when a worker would have spoken, by a clock that skips the time between.

The orchestrator's own time is real: a millisecond that it takes is a millisecond that everybody else waits. Only where
it waits itself is the clock set forward, to the moment when the next worker speaks. So an hour of a thousand workers
takes as long as the orchestrator has to do in it, and who waits for an answer waits as long as he would have.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sweeper.runner import Completed, Event, Interrupted, Job, Reported, Stopped
from trials.result import EpochReport, TrialResult, WeightsFile

SPREAD_FRACTION = 0.2
"""Epochs take from this much less to this much more than their mean."""
CURVE_EPOCHS = 12.0
"""After how many epochs a learning curve has come 63 % of its way."""


class Clock:
    """Seconds that pass as they do, and that can be skipped.

    Args:
        real: seconds that only go forward.
    """

    def __init__(self, real: Callable[[], float] = time.perf_counter) -> None:
        self._real, self._skipped = real, 0.0

    def now(self) -> float:
        """The simulated time."""
        return self._real() + self._skipped

    def worked(self) -> float:
        """The same without what was skipped: what the orchestrator was at work."""
        return self._real()

    def skip(self, seconds: float) -> None:
        """Let time pass in which nobody has anything to do."""
        self._skipped += seconds


@dataclass
class _Trial:
    epochs: int
    height: float
    """What its curve comes to."""
    answered_epochs: int = 0
    """A trial that is interrupted goes on after them."""
    spoke_at: float | None = None
    """When it said what has not been answered yet."""
    end: Event | None = None
    """What it says next, where that is not a report."""


class SimulatedWorkers:
    """Slots that run trials without training (`sweeper.dispatch.Workers`).

    Args:
        slots: how many.
        clock: the time.
        epoch_seconds: how long an epoch takes on average.
        generator: for how long each takes, and what comes of it.
    """

    threads = 1

    def __init__(self, slots: int, clock: Clock, epoch_seconds: float, generator: random.Random) -> None:
        self._slots, self._clock, self._epoch_seconds, self._generator = slots, clock, epoch_seconds, generator
        self._trials: dict[int, _Trial] = {}
        """All that were submitted and have not ended, those that were interrupted or killed too."""
        self._running: set[int] = set()
        self._due: list[tuple[float, int]] = []
        """When which trial speaks: a heap."""
        self._vacated: deque[float] = deque()
        """Since when slots are empty."""
        self.answer_seconds = array("d")
        """From the moment when a worker spoke to its answer, by report."""
        self.idle_seconds = array("d")
        """From the end of a trial to the next one on its slot."""

    @property
    def free(self) -> int:
        return self._slots - len(self._running)

    def news(self) -> str:
        return ""

    def unplaced(self, for_seconds: float) -> tuple[int, ...]:  # noqa: ARG002  a trial begins at once
        return ()

    def submit(self, job: Job) -> None:
        if not self.free:
            raise ValueError(f"trial {job.number} was submitted where all {self._slots} slots are taken")
        recipe = json.loads(job.recipe_json)
        if job.number not in self._trials:
            self._trials[job.number] = _Trial(recipe["train"]["epochs"], height(recipe, self._generator))
        self._running.add(job.number)
        now = self._clock.now()
        if self._vacated:
            self.idle_seconds.append(now - self._vacated.popleft())
        self._speaks(job.number, now + self._next_epoch_seconds())

    def wait(self, timeout_seconds: float) -> Event | None:
        if not self._due:
            return None
        left_seconds = self._due[0][0] - self._clock.now()
        if left_seconds > timeout_seconds:
            self._clock.skip(timeout_seconds)
            return None
        if left_seconds > 0:
            self._clock.skip(left_seconds)
        due, number = heapq.heappop(self._due)
        trial = self._trials[number]
        if trial.end is None:
            trial.spoke_at = due
            return Reported(number, self._report(trial))
        event, trial.end = trial.end, None
        self._running.remove(number)
        self._vacated.append(due)
        if not isinstance(event, Interrupted):
            del self._trials[number]
        return event

    def answer(self, number: int, keep_going: bool) -> None:
        trial = self._trials[number]
        if trial.spoke_at is None:
            raise ValueError(f"trial {number} was answered, and had not spoken")
        now = self._clock.now()
        self.answer_seconds.append(now - trial.spoke_at)
        trial.spoke_at = None
        trial.answered_epochs += 1
        if not keep_going:
            self._ends(number, Stopped(number), now)
        elif trial.answered_epochs == trial.epochs:
            self._ends(number, Completed(number, _result(trial)), now)
        else:
            self._speaks(number, now + self._next_epoch_seconds())

    def interrupt(self) -> None:
        self._due.clear()
        for number in sorted(self._running):
            trial = self._trials[number]
            trial.spoke_at = None
            self._ends(number, trial.end or Interrupted(number), self._clock.now())

    def kill(self, number: int) -> None:
        self._due = [(at, other) for at, other in self._due if other != number]
        heapq.heapify(self._due)
        self._running.remove(number)
        trial = self._trials[number]
        trial.spoke_at = trial.end = None
        self._vacated.append(self._clock.now())

    def close(self) -> None:
        self._due.clear()
        self._running.clear()

    def _speaks(self, number: int, at: float) -> None:
        heapq.heappush(self._due, (at, number))

    def _ends(self, number: int, event: Event, at: float) -> None:
        self._trials[number].end = event
        self._speaks(number, at)

    def _next_epoch_seconds(self) -> float:
        return self._epoch_seconds * self._generator.uniform(1 - SPREAD_FRACTION, 1 + SPREAD_FRACTION)

    def _report(self, trial: _Trial) -> EpochReport:
        epoch = trial.answered_epochs + 1
        return EpochReport(
            epoch=epoch, epochs=trial.epochs, metrics=metrics(trial.height, epoch), seconds=self._epoch_seconds
        )


def height(recipe: dict[str, object], generator: random.Random) -> float:
    """What a trial comes to, in [0, 1]: a smooth hill over the learning rate, with some luck."""
    train = recipe["train"]
    assert isinstance(train, dict)
    steep = math.log10(train["optimizer"]["lr"]) + 2
    return min(1.0, max(0.0, 0.9 * math.exp(-(steep**2) / 2) + generator.gauss(0.0, 0.01)))


def metrics(height: float, epoch: int) -> dict[str, float]:
    """What a trial with that height says after an epoch: as many numbers as a real one."""
    reached = height * (1 - math.exp(-epoch / CURVE_EPOCHS))
    return {
        "train.loss": 1.0 - 0.9 * reached,
        "train.accuracy": reached,
        "train.lr": 0.1 / epoch,
        "train.gradient_norm": 1.0 / epoch,
        "validation.accuracy": reached,
        "validation.balanced_accuracy": 0.99 * reached,
        "validation.top5_accuracy": min(1.0, 1.2 * reached),
        "validation.loss": 1.0 - reached,
    }


def _result(trial: _Trial) -> TrialResult:
    of_weights = {name: value for name, value in metrics(trial.height, trial.epochs).items() if "train" not in name}
    kept = tuple(
        WeightsFile(
            kind=kind,
            path=f"weights/{kind}.safetensors",
            metrics=of_weights,
            epoch=trial.epochs,
            bytes=100_000_000,
            sha256="0" * 64,
        )
        for kind in ("ema", "raw")
    )
    return TrialResult(
        epochs=trial.epochs, weights=kept, parameters=25_000_000, seconds=0.0, device="none", peak_memory_bytes=0
    )
