"""Runs trials one after another in a thread of its own and hands their events out one at a time.

A trial calls back (`report`), an orchestrator asks (`advance`): this turns one into the other. A Ray actor holds a
`Runner`, and so does the in-process twin, which is why both do the same thing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from sweeper.errors import StoreError
from sweeper.user_code import make_importable
from trials.errors import (
    Diverged,
    NoSpace,
    OutOfMemory,
    ProcessLost,
    Pruned,
    TrialError,
)
from trials.errors import (
    Interrupted as TrialInterrupted,
)
from trials.nodes import Nodes
from trials.recipe import Recipe
from trials.result import EpochReport, TrialResult


class TrainFunction(Protocol):
    """What trains one recipe, as `trials.train.run_trial` does."""

    def __call__(
        self, recipe: Recipe, folder: Path, report: Callable[[EpochReport], bool], /, *, stop: Callable[[], bool]
    ) -> TrialResult: ...


TRAIN = "trials.train:run_trial"
"""Where the function that trains one recipe is imported from."""
SHARE_IT = "SWEEPER_HOME must be a folder that all nodes share"
CLOSING_SECONDS = 1.5
"""How long a trial that is stopped in the midst of an epoch may take to get out."""
WORTH_COLLECTING_BYTES = 64 << 20
"""A collection takes 0.17 s once torch is loaded: only for a worker that seems to keep more than this."""


@dataclass(frozen=True)
class Job:
    """One trial to run."""

    number: int
    recipe_json: str
    folder: str
    import_paths: tuple[str, ...] = ()
    """Folders from which the user's own modules may be imported."""
    threads: int = 1
    must_see: str = ""
    """A file of the orchestrator's: a worker that does not see it would train into a folder that nobody reads."""
    store: str = ""
    """The address of the folder in the store, if that has the truth of it."""


@dataclass(frozen=True)
class Reported:
    """The trial finished an epoch and waits to hear whether to go on."""

    number: int
    report: EpochReport


@dataclass(frozen=True)
class Completed:
    """The trial ran to its end."""

    number: int
    result: TrialResult
    kept_bytes: int = 0
    """Memory the worker holds beyond what it held after its first trial."""


@dataclass(frozen=True)
class Stopped:
    """The trial stopped where it was told to."""

    number: int
    kept_bytes: int = 0


@dataclass(frozen=True)
class Interrupted:
    """The trial saved its state when it was asked to; submitted again, it goes on from there."""

    number: int
    kept_bytes: int = 0


FailureKind = Literal["raised", "diverged", "out_of_memory", "no_space", "lost"]


@dataclass(frozen=True)
class Failed:
    """The trial raised, or its worker died."""

    number: int
    reason: str
    traceback: str = ""
    kept_bytes: int = 0
    kind: FailureKind = "raised"
    """`lost`: the worker died, or a process that trained with it, so nothing is known about the trial itself."""
    spoiled: bool = False
    """Its GPU context is broken, or one of its nodes is gone: whatever the worker trained next would fail too."""


Event = Reported | Completed | Stopped | Interrupted | Failed

KINDS: dict[type[TrialError], FailureKind] = {
    Diverged: "diverged",
    OutOfMemory: "out_of_memory",
    NoSpace: "no_space",
    ProcessLost: "lost",
}


@dataclass
class Runner:
    """One slot: at most one trial at a time.

    Args:
        train: `module:function` with the signature of `trials.train.run_trial`.
        hide_gpus: train on the CPU, whatever the machine has.
        nodes: those that train each trial together, where it is more than this process.
    """

    train: str = TRAIN
    hide_gpus: bool = False
    nodes: Nodes | None = None
    _jobs: queue.SimpleQueue[Job | None] = field(default_factory=queue.SimpleQueue)
    _events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    _answers: queue.SimpleQueue[bool | None] = field(default_factory=queue.SimpleQueue)
    _interrupted: int | None = None
    """The trial that is asked to save and stop. Its number, since the request may overtake its start."""
    _held_bytes: int | None = None
    _thread: threading.Thread | None = None

    def start(self, job: Job) -> Event:
        """Start a trial and return its first event."""
        self.submit(job)
        return self._events.get()

    def advance(self, keep_going: bool | None) -> Event:
        """Answer the report that is waiting, as `answer` does, and return the next event."""
        self.answer(keep_going)
        return self._events.get()

    def submit(self, job: Job) -> None:
        """Start a trial."""
        if self._thread is None:
            if self.hide_gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
            # One thread for all trials: torch's thread pool belongs to the thread that made it.
            self._thread = threading.Thread(target=self._work, name="trial", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def answer(self, keep_going: bool | None) -> None:
        """Answer the report that is waiting; with ``None`` where nobody has recorded it.

        The trial then is interrupted at that epoch, which it has saved, and tells of it again when it goes on.
        """
        self._answers.put(keep_going)

    def next_event(self, timeout_seconds: float) -> Event | None:
        """The next event, or ``None`` when none came in time."""
        with contextlib.suppress(queue.Empty):
            return self._events.get(timeout=timeout_seconds)
        return None

    def interrupt(self, number: int) -> None:
        """Ask that trial to save its state and stop; from any thread, and without effect on any other trial."""
        self._interrupted = number

    def close(self) -> None:
        """End the thread, in the midst of a trial too: inside torch when Python ends, it would abort the process."""
        self._answers.put(False)
        self._jobs.put(None)
        if self._thread is not None:
            raise_in(self._thread, SystemExit)
            self._thread.join(CLOSING_SECONDS)

    def _work(self) -> None:
        with contextlib.suppress(SystemExit):  # by `close`
            while (job := self._jobs.get()) is not None:
                event = self._run(job)
                self._interrupted = None
                self._events.put(event)

    def _run(self, job: Job) -> Event:
        event = self._outcome(job)
        if isinstance(event, Failed):
            # Errors and frames refer to each other, and so may keep all that the trial held.
            release_memory()
        # Measured here, where the trial's frames and all that they held are gone.
        return replace(event, kept_bytes=self._kept_bytes())

    def _outcome(self, job: Job) -> Completed | Stopped | Interrupted | Failed:
        def report(epoch: EpochReport) -> bool:
            self._events.put(Reported(job.number, epoch))
            answer = self._answers.get()
            if answer is None:
                raise TrialInterrupted(epoch.epoch + 1, 0)
            return answer

        def stop() -> bool:
            return self._interrupted == job.number

        try:
            if job.must_see and not Path(job.must_see).is_file():
                return Failed(job.number, f"{socket.gethostname()} does not see {job.must_see}: {SHARE_IT}")
            make_importable(job.import_paths)
            set_threads(job.threads)
            train: TrainFunction = import_from(self.train)
            if self.nodes is not None:
                train = functools.partial(train, nodes=self.nodes)  # type: ignore[call-arg]
            if job.store:
                from sweeper.store.trial import kept_in_store

                train = kept_in_store(train, job.store)
            recipe = Recipe.model_validate_json(job.recipe_json)
            return Completed(job.number, train(recipe, Path(job.folder), report, stop=stop))
        except Pruned:
            return Stopped(job.number)
        except TrialInterrupted:
            return Interrupted(job.number)
        except TrialError as error:
            reason, kind = storable(f"{type(error).__name__}: {error}"), KINDS.get(type(error), "raised")
            has_lost_node = kind == "lost" and self.nodes is not None and self.nodes.count > 1
            spoiled = has_lost_node or (kind == "out_of_memory" and gpu_is_broken())
            return Failed(job.number, reason, storable(traceback.format_exc()), kind=kind, spoiled=spoiled)
        except StoreError as error:
            # One that is away for long says nothing about the trial, which goes on later.
            return Failed(job.number, storable(str(error)), kind="lost" if error.transient else "raised")
        except BaseException as error:  # noqa: BLE001  the user's own code may raise anything, SystemExit too
            reason = storable(" ".join(f"{type(error).__name__}: {error}".split()))
            return Failed(job.number, reason, storable(traceback.format_exc()), spoiled=gpu_is_broken())

    def _kept_bytes(self) -> int:
        held = held_bytes()
        if self._held_bytes is None:
            # The first trial brings the libraries, the data set and warm caches, which are meant to stay.
            self._held_bytes = held
        if held - self._held_bytes > WORTH_COLLECTING_BYTES:
            gc.collect()
            held = held_bytes()
        return max(0, held - self._held_bytes)


def import_from(path: str) -> Any:
    """What `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def storable(text: str) -> str:
    r"""The text without what no database takes: half characters, as in names of files that are not UTF-8, and NUL.

    >>> storable("cannot read caf\udce9.png: \0")
    'cannot read caf\\udce9.png: \\0'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise ``error`` in a thread at its next line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))


def set_threads(threads: int) -> None:
    """Give the trial its share of the cores: a reused worker keeps the thread count of the trial before."""
    import torch

    torch.set_num_threads(threads)


def held_bytes() -> int:
    """Memory this worker holds now: the GPU's when there is one, else the resident memory of the process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)


def release_memory() -> None:
    """Give back what nothing refers to any more, also what torch sets aside of the GPU's memory."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # of a broken GPU, whose worker is replaced
            torch.cuda.empty_cache()


def gpu_is_broken() -> bool:
    """Whether the GPU context of this process is past use: a failed assertion on the device fails all later calls."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
