"""Where trials run: persistent Ray actors, one per slot, and an in-process twin. The only module that knows Ray.

Each actor keeps its process, its imports and its data set warm from trial to trial. A call to an actor runs until the
trial's next report, so the orchestrator only ever waits for whichever actor speaks next.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeper.errors import WorkersError
from sweeper.runner import TRAIN, Event, Failed, Job, Reported, Runner
from sweeper.study_file import Workers as WorkersSection

KEPT_LIMIT_BYTES = 1 << 30
"""A worker that holds this much more than after its first trial is replaced."""
KNOCK_SECONDS = 5.0
OBJECT_STORE_BYTES = 128 << 20
"""Of a Ray of our own: only recipes and reports travel, and by default Ray takes a third of the memory."""


class Workers(Protocol):
    """Slots that run trials."""

    @property
    def free(self) -> int:
        """How many trials may be submitted now."""

    @property
    def threads(self) -> int:
        """Threads a trial may use: its share of the cores, at least one."""

    def submit(self, job: Job) -> None:
        """Start a trial on a free slot."""

    def wait(self, timeout_seconds: float) -> Event | None:
        """The next event of any trial, or ``None`` when none came in time."""

    def answer(self, number: int, keep_going: bool) -> None:
        """Answer the report of a trial, which waits for it."""

    def interrupt(self) -> None:
        """Ask all that run to save their state and stop, without waiting for it.

        For each an event follows as always: `Interrupted`, unless another came first. Where a report had not been
        answered yet, it is answered here.
        """

    def kill(self, number: int) -> None:
        """Kill the worker of a trial, and replace it; no event of that trial follows."""

    def close(self) -> None:
        """Stop what runs; checkpoints stay."""


class InProcessWorkers:
    """The same loop without Ray, one trial at a time, for a debugger.

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
        if self._unanswered:
            self._unanswered = False
            self._runner.answer(keep_going)

    def interrupt(self) -> None:
        if self._number is not None:
            self._runner.interrupt(self._number)
            self.answer(self._number, keep_going=True)

    def kill(self, number: int) -> None:  # noqa: ARG002  there is only one trial
        self._runner.close()
        self._runner, self._number, self._unanswered = Runner(self._train), None, False

    def close(self) -> None:
        self._runner.close()


class RayWorkers:
    """Persistent Ray actors, one per slot.

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
        self._train, self._kept_limit_bytes = train, kept_limit_bytes
        ray = self._ray = _connect(section, address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        try:
            self._cpus, self._gpus, self.slots = _slots(
                section, [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
            )
        except WorkersError:
            ray.shutdown()
            raise
        self._actor_class = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0, max_concurrency=2)(
            Runner
        )
        self._idle: list[Any] = [self._new_actor() for _ in range(self.slots)]
        self._busy: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}
        self._unanswered: set[int] = set()

    @property
    def free(self) -> int:
        return len(self._idle)

    @property
    def threads(self) -> int:
        return max(1, int(self._cpus))

    def submit(self, job: Job) -> None:
        actor = self._idle.pop(0)
        self._busy[job.number] = actor
        self._pending[actor.start.remote(job)] = job.number

    def wait(self, timeout_seconds: float) -> Event | None:
        if not self._pending:
            return None
        ready, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=timeout_seconds)
        if not ready:
            return None
        number = self._pending.pop(ready[0])
        try:
            event: Event = self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[0]
            event = Failed(number, f"the worker died: {cause}", kind="lost")
        if isinstance(event, Reported):
            self._unanswered.add(number)
        else:
            self._release(number, event)
        return event

    def answer(self, number: int, keep_going: bool) -> None:
        if number in self._unanswered:
            self._unanswered.remove(number)
            self._pending[self._busy[number].advance.remote(keep_going)] = number

    def interrupt(self) -> None:
        for number, actor in self._busy.items():
            actor.interrupt.remote(number)
            self.answer(number, keep_going=True)

    def kill(self, number: int) -> None:
        actor = self._busy.pop(number)
        self._unanswered.discard(number)
        self._pending = {call: other for call, other in self._pending.items() if other != number}
        self._ray.kill(actor)
        self._idle.append(self._new_actor())

    def close(self) -> None:
        for actor in [*self._busy.values(), *self._idle]:
            self._ray.kill(actor)
        self._ray.shutdown()

    def _new_actor(self) -> Any:
        return self._actor_class.remote(self._train, hide_gpus=self._gpus == 0)

    def _release(self, number: int, event: Event) -> None:
        actor = self._busy.pop(number)
        kept = getattr(event, "kept_bytes", 0)
        if kept > self._kept_limit_bytes or (isinstance(event, Failed) and (event.kind == "lost" or event.spoiled)):
            self._ray.kill(actor)
            actor = self._new_actor()
        # First in, first out: a replaced worker has time to come up while the others work.
        self._idle.append(actor)


def _connect(section: WorkersSection, address: str | None) -> Any:
    # Said before the import, which reads them. `Runner` hides the GPUs itself.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if address is None:
        wanted = (section.concurrent or 1) * section.cpus
        # Cores are a budget here, not a fence: more workers than cores is the user's own choice to make.
        place: dict[str, Any] = {
            "address": "local",
            "num_cpus": max(cores(), math.ceil(wanted)),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        place = {"address": address}
        _knock(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = "a Ray of our own does not start" if address is None else f"no Ray cluster answers at {address}"
        raise WorkersError(f"{where}: {cause}") from error
    finally:
        # Ray takes SIGTERM for itself, where it would end the study without a word.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return ray


def _knock(address: str) -> None:
    """Make sure that something listens: Ray itself would try for minutes, and log while it does."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # `auto`, or a name that only Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise WorkersError(
            f"RAY_ADDRESS={address}: nothing answers there ({error.strerror or error}); start that Ray, or unset "
            "RAY_ADDRESS to use one of our own"
        ) from error


def _slots(section: WorkersSection, nodes: Sequence[tuple[float, float]]) -> tuple[float, float, int]:
    """CPUs and GPUs of each slot, and how many slots: as asked for, or as many as fit.

    Args:
        section: `workers` of study.yaml.
        nodes: CPUs and GPUs of each node. A slot never spans two nodes, nor a share of a GPU two GPUs.
    """
    cpus, gpus = (sum(amounts) for amounts in zip(*nodes, strict=True)) if nodes else (0.0, 0.0)
    gpus_each = section.gpus if section.gpus is not None else (1.0 if gpus >= 1 else 0.0)
    fitting = sum(_slots_on(*node, section.cpus, gpus_each) for node in nodes)
    count = section.concurrent if section.concurrent is not None else max(1, fitting)
    if count > fitting:
        raise WorkersError(
            f"workers: {count} concurrent with {section.cpus:g} CPUs and {gpus_each:g} GPUs each do not fit: "
            f"Ray has {cpus:g} CPUs and {gpus:g} GPUs, enough for {fitting}; lower workers.concurrent, cpus or gpus"
        )
    return section.cpus, gpus_each, count


def _slots_on(cpus: float, gpus: float, cpus_each: float, gpus_each: float) -> int:
    by_cpus = int(cpus / cpus_each + 1e-9)
    if gpus_each == 0:
        return by_cpus
    by_gpus = int(gpus // gpus_each) if gpus_each >= 1 else int(gpus) * int(1 / gpus_each + 1e-9)
    return min(by_cpus, by_gpus)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_paths(folders: Iterable[Path]) -> tuple[str, ...]:
    """Folders from which a user's own `module:function` may come, in order, each once."""
    return tuple(dict.fromkeys(str(folder.resolve()) for folder in folders))
