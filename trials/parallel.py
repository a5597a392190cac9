"""The processes of a data parallel trial on one machine: started with it, ended with it.

The caller's process is rank 0. Each other rank is a child process that shares a socket with it, by which either side
hears at once that the other is gone, however it ended: a dead child ends the trial, and no child outlives its parent.
A child never imports the caller's script, which may have no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO

import torch
import torch.distributed as dist

from trials.errors import ProcessLost, TrialError
from trials.fit.distributed import ALONE, Ranks
from trials.locate import one_line
from trials.recipe import Recipe

_CHILD = """
import sys
from multiprocessing.connection import Connection
parent = Connection(int(sys.argv[1]))
sys.path[:] = parent.recv()
from trials.parallel import follow
follow(parent)
"""
_READY, _DONE = "ready", "done"
_MEETING = timedelta(minutes=2)
"""How long the processes, all known to be ready, may take to find each other."""
_WAITING = timedelta(days=7)
"""How long one waits for another: whether it lives is watched, and the answer to a report may take any time."""
_LAST_WORDS_SECONDS = 5.0
"""How long rank 0, cut off from another rank, waits to hear why."""
_AFTER_OTHERS_SECONDS = 1.0
"""A rank that fails because another did tells so later than that one."""


@dataclass(frozen=True)
class Job:
    """What a child is to do."""

    recipe_json: str
    folder: str
    rank: int
    device: str
    store: str
    """The file by which the processes find each other."""
    threads: int


@contextlib.contextmanager
def all_ranks(recipe: Recipe, folder: Path, examples: int, device: torch.device) -> Iterator[Ranks]:
    """Start the other ranks of a trial with ``examples`` to train on; inside, the process group is up.

    The threads of this process are shared out among all. Raises :class:`TrialError` when there are more processes than
    GPUs or examples, :class:`ProcessLost` when one of them dies, and what one of them raises.
    """
    size = recipe.train.data_parallel
    if size == 1:
        yield ALONE
        return
    devices = rank_devices(size, examples, device)
    with (
        tempfile.TemporaryDirectory(prefix="sweeper-") as home,
        _shared_threads(size) as threads,
        _Children() as children,
    ):
        store = str(Path(home) / "store")
        for rank in range(1, size):
            children.start(Job(recipe.model_dump_json(), str(folder), rank, str(devices[rank]), store, threads), size)
        children.wait_until_ready()
        children.watch(on_failure=_abort if device.type == "cuda" else lambda: None)
        try:
            with process_group(Ranks(0, size), device, store):
                yield Ranks(0, size)
        except Exception as error:
            failure = children.failure(_LAST_WORDS_SECONDS if isinstance(error, RuntimeError) else 0.0)
            all_alike = isinstance(error, TrialError) and not isinstance(failure, ProcessLost)
            if failure is None or all_alike:
                raise
            raise failure from error


def follow(parent: Connection) -> None:
    """What a child process does: train along with rank 0, and say how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is rank 0's to hear
    job: Job = parent.recv()
    threading.Thread(target=_end_with, args=(parent, job), daemon=True).start()
    torch.set_num_threads(job.threads)
    recipe, device = Recipe.model_validate_json(job.recipe_json), torch.device(job.device)
    ranks = Ranks(job.rank, recipe.train.data_parallel)
    try:
        from trials.examples import load_examples
        from trials.train import train_along

        splits = load_examples(recipe, device)
        parent.send(_READY)
        with process_group(ranks, device, job.store):
            train_along(recipe, Path(job.folder), splits, device, ranks)
        parent.send(_DONE)
    except BaseException as error:  # noqa: BLE001  the user's own code may raise anything, SystemExit too
        if isinstance(error, RuntimeError):
            time.sleep(_AFTER_OTHERS_SECONDS)
        parent.send(_as_trial_error(error, ranks))
        # Whatever is left of the process group may wait for the others for ever.
        os._exit(1)


def _end_with(parent: Connection, job: Job) -> None:
    """End this process when its parent is gone; nothing more is ever sent."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    shutil.rmtree(Path(job.store).parent, ignore_errors=True)
    os._exit(1)


def _as_trial_error(error: BaseException, ranks: Ranks) -> TrialError:
    if isinstance(error, TrialError):
        return error
    return TrialError(
        f"train.data_parallel: process {ranks.rank} of {ranks.size} raised {type(error).__name__}: {one_line(error)}"
    )


def rank_devices(size: int, examples: int, device: torch.device) -> list[torch.device]:
    """The device of each rank: ``device`` and those after it."""
    key = f"train.data_parallel: found {size} processes"
    if size > examples:
        raise TrialError(f"{key}, expected at most one for each of the {examples} training examples; lower it")
    if device.type != "cuda":
        return [device] * size
    first, count = device.index, torch.cuda.device_count()
    if first + size > count:
        raise TrialError(
            f"{key}, expected at most {count - first}, one a GPU from {device} on; lower it, or give each trial more "
            "GPUs (workers.gpus)"
        )
    return [torch.device("cuda", first + rank) for rank in range(size)]


@contextlib.contextmanager
def _shared_threads(size: int) -> Iterator[int]:
    before = torch.get_num_threads()
    each = max(1, before // size)
    torch.set_num_threads(each)
    try:
        yield each
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def process_group(ranks: Ranks, device: torch.device, store: str) -> Iterator[None]:
    """Torch's default process group over all ranks."""
    if dist.is_initialized():
        raise TrialError("train.data_parallel: another trial trains in this process; expected one at a time")
    on_gpu, hook = device.type == "cuda", sys.excepthook
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=dist.FileStore(store, ranks.size),  # type: ignore[attr-defined]
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=_MEETING,
        device_id=device if on_gpu else None,
    )
    sys.excepthook = hook  # torch's own would go on to say "[rank0]" before every line of a traceback
    try:
        dist.set_timeout(_WAITING)
        with torch.cuda.device(device) if on_gpu else contextlib.nullcontext():
            yield
    except BaseException:
        # The others will not come to the end, for which a clean one would wait.
        _abort()
        raise
    finally:
        dist.destroy_process_group()


def _abort() -> None:
    """Wake whoever waits for another rank."""
    if dist.group.WORLD is not None:
        dist.group.WORLD.abort()


class _Children:
    """The other ranks, seen from rank 0."""

    def __init__(self) -> None:
        self._children: dict[Connection, _Child] = {}
        self._thread: threading.Thread | None = None
        self._failed = threading.Event()
        self._failure: TrialError | None = None
        self._ending = False

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *_: object) -> None:
        """End all; they hold nothing that would have to be put away."""
        self._ending = True
        for child in self._children.values():
            child.process.kill()
        if self._thread is not None:
            self._thread.join()
        for connection, child in self._children.items():
            child.process.wait()
            connection.close()
            child.stderr.close()

    def start(self, job: Job, size: int) -> None:
        """Start one more."""
        ours, theirs = Pipe()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._children[ours] = _Child(job.rank, size, process, stderr)
        with contextlib.suppress(OSError):  # a child that died at once is heard of later
            ours.send(sys.path)
            ours.send(job)

    def wait_until_ready(self) -> None:
        """Return when all have their examples. Raises what keeps one from it."""
        for connection, child in self._children.items():
            heard = _hear(connection, child)
            if isinstance(heard, TrialError):
                raise heard

    def watch(self, on_failure: Callable[[], None]) -> None:
        """Call ``on_failure``, in another thread, when one fails or dies."""
        self._thread = threading.Thread(target=self._watch, args=(on_failure,), name="ranks", daemon=True)
        self._thread.start()

    def failure(self, patience_seconds: float) -> TrialError | None:
        """Why one of them failed, if one has or soon does."""
        self._failed.wait(patience_seconds)
        return self._failure

    def _watch(self, on_failure: Callable[[], None]) -> None:
        waiting = dict(self._children)
        while waiting:
            heard_from = wait(list(waiting))
            for connection in [one for one in waiting if one in heard_from]:
                heard = _hear(connection, waiting.pop(connection))
                if isinstance(heard, TrialError) and self._failure is None and not self._ending:
                    self._failure = heard
                    self._failed.set()
                    on_failure()


@dataclass(frozen=True)
class _Child:
    rank: int
    size: int
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]

    def how_it_died(self) -> ProcessLost:
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.stderr.seek(0)
        words = self.stderr.read().decode(errors="replace").split("\n")
        said = next((f": {line.strip()}" for line in reversed(words) if line.strip()), "")
        return ProcessLost(
            f"train.data_parallel: process {self.rank} of {self.size} died ({how}{said}); "
            "start again to go on from the newest checkpoint"
        )


def _hear(connection: Connection, child: _Child) -> str | TrialError:
    """What a child says next, or how it died."""
    try:
        heard: str | TrialError = connection.recv()
    except (EOFError, OSError):
        return child.how_it_died()
    return heard
