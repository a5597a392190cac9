"""Slots that persist, each with a Ray actor that runs its trials.

Each actor keeps its process, its imports and its data set warm from trial to trial. A call to an actor runs until the
trial's next report, so the orchestrator only ever waits for whichever actor speaks next.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Any

from sweeper.dispatch.connect import connect
from sweeper.dispatch.places import LOOK_SECONDS, Places
from sweeper.dispatch.slot import Slot, SlotMaker
from sweeper.errors import WorkersError
from sweeper.pulse import Pulse, cause_of_death, descendants, end, node_is_gone
from sweeper.runner import TRAIN, Event, Failed, Interrupted, Job, Reported
from sweeper.study_file import Workers as WorkersSection

KEPT_LIMIT_BYTES = 1 << 30
"""A worker that holds this much more than after its first trial is replaced."""


class RayWorkers:
    """Slots that persist, in Ray.

    Args:
        section: `workers` of study.yaml.
        address: the cluster to use; ``None`` starts a Ray of our own.
        train: `module:function` that trains one recipe.
        kept_limit_bytes: a worker that keeps more memory than this after a trial is replaced.

    Raises:
        WorkersError: Ray does not answer, or cannot ever place what the section asks for.
    """

    def __init__(
        self,
        section: WorkersSection,
        address: str | None = None,
        train: str = TRAIN,
        kept_limit_bytes: int = KEPT_LIMIT_BYTES,
    ) -> None:
        self._kept_limit_bytes, self._own = kept_limit_bytes, address is None
        self._others = descendants()
        ray = self._ray = connect(section, address)
        try:
            self._places = Places(ray, section, own=self._own)
        except WorkersError:
            ray.shutdown()
            raise
        # A client of Ray (`ray://`) hears of nothing but the server that it is connected to.
        heart = address if address and "://" in address else ray.get_runtime_context().gcs_address
        self._pulse = Pulse(str(heart), own=self._own)
        self._maker = SlotMaker(ray, train, section, self._places.gpus)
        self._coming: dict[Any, Slot] = {}
        """Slots that are not up yet, by the call that returns when they are."""
        self._idle: list[Slot] = []
        self._queue: dict[int, tuple[Job, float]] = {}
        """Submitted trials that no slot has taken yet, with the time."""
        self._busy: dict[int, Slot] = {}
        self._pending: dict[Any, int] = {}
        self._unanswered: set[int] = set()
        self._told: deque[Event] = deque()
        """Events that no actor has to tell."""
        self._adapt()

    @property
    def free(self) -> int:
        # What comes beyond the places that there are waits for a node, and no trial should wait with it.
        room = self._places.count - len(self._idle) - len(self._busy)
        return len(self._idle) + min(len(self._coming), max(0, room)) - len(self._queue)

    @property
    def threads(self) -> int:
        return max(1, int(self._places.cpus))

    def news(self) -> str:
        return self._places.news()

    def unplaced(self, for_seconds: float) -> tuple[int, ...]:
        latest = time.monotonic() - for_seconds
        return tuple(number for number, (_, since) in self._queue.items() if since <= latest)

    def submit(self, job: Job) -> None:
        self._queue[job.number] = (job, time.monotonic())
        self._hand_out()

    def wait(self, timeout_seconds: float) -> Event | None:
        until = time.monotonic() + timeout_seconds
        while True:
            self._pulse.check()
            if self._places.look(self._pulse.answers) or self._missing > 0:
                self._adapt()
            if self._told:
                return self._told.popleft()
            calls = [*self._pending, *self._coming]
            if not calls or not (self._pending or self._queue or self.free <= 0):
                return None
            left = max(0.0, until - time.monotonic())
            ready, _ = self._ray.wait(calls, num_returns=1, timeout=min(left, LOOK_SECONDS))
            if ready and ready[0] in self._pending:
                return self._hear(ready[0])
            if ready:
                self._welcome(ready[0])
            elif left <= LOOK_SECONDS:
                return None

    def answer(self, number: int, keep_going: bool) -> None:
        self._answer(number, keep_going)

    def interrupt(self) -> None:
        for number, slot in self._busy.items():
            slot.runner.interrupt.remote(number)
            self._answer(number, None)
        self._told += [Interrupted(number) for number in self._queue]
        self._queue.clear()

    def kill(self, number: int) -> None:
        if number in self._queue:
            del self._queue[number]
            return
        slot = self._busy.pop(number)
        self._unanswered.discard(number)
        self._pending = {call: other for call, other in self._pending.items() if other != number}
        self._replace(slot)

    def close(self) -> None:
        ours = [process for process in descendants() if process not in self._others] if self._own else []
        for slot in [*self._busy.values(), *self._idle, *self._coming.values()] if self._pulse.answers() else ():
            self._maker.end(slot)
        self._ray.shutdown()
        end(ours)

    def _answer(self, number: int, keep_going: bool | None) -> None:
        if number in self._unanswered:
            self._unanswered.remove(number)
            self._pending[self._busy[number].runner.advance.remote(keep_going)] = number

    def _adapt(self) -> None:
        """Have as many slots as are wanted, and none of them on a node that is gone."""
        for slot in [slot for slot in self._idle if not slot.nodes <= self._places.nodes]:
            self._idle.remove(slot)
            self._end(slot)
        # A slot that is up stays: what is too much then is on a node that has gone, and about to be heard of.
        while self._missing < 0 and self._coming:
            _, newest = self._coming.popitem()
            self._end(newest)
        while self._missing > 0 and self._pulse.answers():
            slot = self._maker.make()
            self._coming[slot.ready] = slot

    @property
    def _missing(self) -> int:
        """How many slots are still to be made."""
        return self._places.wanted - len(self._idle) - len(self._busy) - len(self._coming)

    def _replace(self, slot: Slot) -> None:
        self._end(slot)
        self._adapt()

    def _end(self, slot: Slot) -> None:
        # Where the head is gone, all that it knew of ends with this process.
        if self._pulse.answers():
            self._maker.end(slot)

    def _hand_out(self) -> None:
        """Give what is queued to slots that are up."""
        while self._idle and self._queue:
            number, (job, _) = next(iter(self._queue.items()))
            # First in, first out: the load is spread, and each keeps its data warm.
            slot = self._idle.pop(0)
            self._busy[number] = slot
            self._pending[slot.runner.start.remote(job)] = number
            del self._queue[number]

    def _welcome(self, call: Any) -> None:
        """A slot is up, or will never be."""
        slot = self._coming.pop(call)
        try:
            nodes = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._replace(slot)
            if self._queue and not node_is_gone(str(error)):
                # A trial pays for it, with one of its retries: else a worker that never comes up is tried for ever.
                number = next(iter(self._queue))
                del self._queue[number]
                self._told.append(Failed(number, cause_of_death(str(error)), kind="lost"))
        else:
            self._idle.append(replace(slot, nodes=nodes))
        self._hand_out()

    def _hear(self, call: Any) -> Event:
        number = self._pending[call]
        try:
            event: Event = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            starved = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            reason = cause_of_death(str(error))
            event = Failed(number, reason, kind="out_of_memory" if starved else "lost", spoiled=True)
        del self._pending[call]
        if isinstance(event, Reported):
            self._unanswered.add(number)
            return event
        slot = self._busy.pop(number)
        if event.kept_bytes > self._kept_limit_bytes or (isinstance(event, Failed) and event.spoiled):
            self._replace(slot)
        else:
            self._idle.append(slot)
            self._hand_out()
        return event
