"""The twin of `sweeper.dispatch` without Ray: trials in this process, one at a time."""

from __future__ import annotations

from sweeper.runner import TRAIN, Event, Job, Reported, Runner
from sweeper.slots import cores


class InProcessWorkers:
    """One slot in this process, for a debugger and for tests.

    Args:
        train: `module:function` that trains one recipe.
    """

    def __init__(self, train: str = TRAIN) -> None:
        self._train = train
        self._runner = Runner(train)
        self._number: int | None = None
        self._unanswered = False

    @property
    def free(self) -> int:
        return 1 if self._number is None else 0

    @property
    def threads(self) -> int:
        return cores()

    def news(self) -> str:
        return ""

    def unplaced(self, for_seconds: float) -> tuple[int, ...]:  # noqa: ARG002  a trial begins at once
        return ()

    def submit(self, job: Job) -> None:
        self._number = job.number
        self._runner.submit(job)

    def wait(self, timeout_seconds: float) -> Event | None:
        if self._number is None:
            return None
        event = self._runner.next_event(timeout_seconds)
        if isinstance(event, Reported):
            self._unanswered = True
        elif event is not None:
            self._number = None
        return event

    def answer(self, number: int, keep_going: bool) -> None:  # noqa: ARG002  there is only one trial
        self._answer(keep_going)

    def interrupt(self) -> None:
        if self._number is not None:
            self._runner.interrupt(self._number)
            self._answer(None)

    def kill(self, number: int) -> None:  # noqa: ARG002  there is only one trial
        self._runner.close()
        self._runner, self._number, self._unanswered = Runner(self._train), None, False

    def close(self) -> None:
        self._runner.close()

    def _answer(self, keep_going: bool | None) -> None:
        if self._unanswered:
            self._unanswered = False
            self._runner.answer(keep_going)
