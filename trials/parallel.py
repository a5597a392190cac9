"""The processes of a data parallel trial: started with it, ended with it.

The caller's process is rank 0. Each other rank is a child process, of this one or of whatever starts processes on
another node: a dead one ends the trial, and none outlives rank 0.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.distributed import FileStore, Store, TCPStore  # type: ignore[attr-defined]

from trials.errors import ProcessLost, TrialError
from trials.fit.distributed import ALONE, Ranks
from trials.locate import one_line
from trials.nodes import CUT_OFF_SECONDS, THIS_NODE, FarProcess, Nodes, Reception, end_all_when_cut_off, interface_of
from trials.rank_process import DONE, READY, Job, RankProcess
from trials.recipe import Recipe

_MEETING = timedelta(minutes=2)
"""How long the processes, all known to be ready, may take to find each other."""
_WAITING = timedelta(days=7)
"""How long one waits for another: whether it lives is watched, and the answer to a report may take any time."""
_LAST_WORDS_SECONDS = 5.0
"""How long rank 0, cut off from another rank, waits to hear why; from one on another node as long as that may take."""
_AFTER_OTHERS_SECONDS = 1.0
"""A rank that fails because another did tells so later than that one."""


@contextlib.contextmanager
def all_ranks(
    recipe: Recipe, folder: Path, examples: int, device: torch.device, nodes: Nodes = THIS_NODE
) -> Iterator[Ranks]:
    """Start the other ranks of a trial with ``examples`` to train on; inside, the process group is up.

    Each of ``nodes`` has as many, this one the first; the threads of this process are shared out among those here.
    Raises :class:`TrialError` when there are more processes than GPUs or examples, or they cannot be shared out evenly,
    :class:`ProcessLost` when one of them dies, and what one of them raises.
    """
    size = recipe.train.data_parallel or nodes.processes
    if size == 1:
        yield ALONE
        return
    devices = rank_devices(size, examples, device, nodes.count)
    host = nodes.host() if nodes.others else ""
    with (
        tempfile.TemporaryDirectory(prefix="sweeper-") as home,
        _shared_threads(len(devices)) as threads,
        _Others() as others,
    ):
        store, place = _meeting_place(Path(home), host, size)

        def job(rank: int) -> Job:
            on = devices[rank] if rank < len(devices) else _elsewhere(device, rank % len(devices))
            return Job(recipe.model_dump_json(), str(folder), rank, size, str(on), place, threads, host)

        for rank in range(1, len(devices)):
            others.add(RankProcess(sys.path, job(rank)))
        if nodes.others:
            for process in _invite(nodes, host, size, len(devices), job):
                others.add(process)
        others.wait_until_ready()
        others.watch(on_failure=_abort if device.type == "cuda" else lambda: None)
        try:
            with process_group(Ranks(0, size), device, store, host):
                yield Ranks(0, size)
        except Exception as error:
            patience_seconds = _LAST_WORDS_SECONDS + (CUT_OFF_SECONDS if host else 0.0)
            failure = others.failure(patience_seconds if isinstance(error, RuntimeError) else 0.0)
            all_alike = isinstance(error, TrialError) and not isinstance(failure, ProcessLost)
            if failure is None or all_alike:
                raise
            raise failure from error


def _invite(nodes: Nodes, host: str, size: int, each: int, job: Callable[[int], Job]) -> list[FarProcess]:
    """Have the ranks of the other nodes started, ``each`` on every one."""
    with Reception(host, size) as reception:
        for rank in range(each, size):
            nodes.others[rank // each - 1](reception.invitation(rank))
        come = reception.receive(set(range(each, size)))
    for rank, process in come.items():
        process.assign(sys.path, job(rank))
    return list(come.values())


def _meeting_place(home: Path, host: str, size: int) -> tuple[Store, str]:
    """By what the ranks find each other, and how that is told to the others: a file, or a port of this node."""
    if not host:
        path = str(home / "store")
        return FileStore(path, size), path
    store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False, timeout=_MEETING)
    return store, f"tcp://{host}:{store.port}"


def _store_at(place: str, size: int) -> Store:
    if not place.startswith("tcp://"):
        return FileStore(place, size)
    at = urlsplit(place)
    return TCPStore(str(at.hostname), int(at.port or 0), size, timeout=_MEETING)


def _elsewhere(device: torch.device, index: int) -> torch.device:
    """The device of a rank on another node, whose GPUs are counted from 0."""
    return torch.device("cuda", index) if device.type == "cuda" else device


def follow(parent: Connection) -> None:
    """What a child process does: train along with rank 0, and say how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is rank 0's to hear
    job: Job = parent.recv()
    threading.Thread(target=_end_with, args=(parent, job), daemon=True).start()
    torch.set_num_threads(job.threads)
    recipe, device = Recipe.model_validate_json(job.recipe_json), torch.device(job.device)
    ranks = Ranks(job.rank, job.size)
    try:
        from trials.examples import load_examples
        from trials.train import train_along

        splits = load_examples(recipe, device)
        parent.send(READY)
        with process_group(ranks, device, _store_at(job.store, job.size), job.host):
            train_along(recipe, Path(job.folder), splits, device, ranks)
        parent.send(DONE)
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
    if not job.host:
        shutil.rmtree(Path(job.store).parent, ignore_errors=True)
    os._exit(1)


def _as_trial_error(error: BaseException, ranks: Ranks) -> TrialError:
    if isinstance(error, TrialError):
        return error
    return TrialError(
        f"train.data_parallel: process {ranks.rank} of {ranks.size} raised {type(error).__name__}: {one_line(error)}"
    )


def rank_devices(size: int, examples: int, device: torch.device, nodes: int = 1) -> list[torch.device]:
    """The devices of the ranks on this node, one of ``nodes``: ``device`` and those after it."""
    key = f"train.data_parallel: found {size} processes"
    if size > examples:
        raise TrialError(f"{key}, expected at most one for each of the {examples} training examples; lower it")
    if size % nodes:
        raise TrialError(f"{key}, expected a multiple of the {nodes} nodes of each trial; change it or workers.nodes")
    each = size // nodes
    if device.type != "cuda":
        return [device] * each
    first, count = device.index, torch.cuda.device_count()
    if first + each > count:
        expected = f"at most {nodes * (count - first)}, one a GPU from {device} on{' of each node' * (nodes > 1)}"
        raise TrialError(f"{key}, expected {expected}; lower it, or give each trial more GPUs (workers.gpus)")
    return [torch.device("cuda", first + rank) for rank in range(each)]


@contextlib.contextmanager
def _shared_threads(processes: int) -> Iterator[int]:
    before = torch.get_num_threads()
    each = max(1, before // processes)
    torch.set_num_threads(each)
    try:
        yield each
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def process_group(ranks: Ranks, device: torch.device, store: Store, host: str = "") -> Iterator[None]:
    """Torch's default process group over all ranks, which meet at ``store``; ``host`` is this node's among several."""
    if dist.is_initialized():
        raise TrialError("train.data_parallel: another trial trains in this process; expected one at a time")
    on_gpu, hook = device.type == "cuda", sys.excepthook
    with _interface(host):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=_MEETING,
            device_id=device if on_gpu else None,
        )
    sys.excepthook = hook  # torch's own would go on to say "[rank0]" before every line of a traceback
    try:
        if host:
            end_all_when_cut_off(host)
        dist.set_timeout(_WAITING)
        with torch.cuda.device(device) if on_gpu else contextlib.nullcontext():
            yield
    except BaseException:
        # The others will not come to the end, for which a clean one would wait.
        _abort()
        raise
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _interface(host: str) -> Iterator[None]:
    """Have gloo and NCCL use the interface with the address ``host``: by itself gloo takes the one of the host's name,
    which on many machines is the loopback."""
    name = interface_of(host) if host else None
    wanted = {} if name is None else {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}
    ours = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


def _abort() -> None:
    """Wake whoever waits for another rank."""
    if dist.group.WORLD is not None:
        dist.group.WORLD.abort()


class _Others:
    """The other ranks, seen from rank 0."""

    def __init__(self) -> None:
        self._processes: dict[Connection, RankProcess | FarProcess] = {}
        self._thread: threading.Thread | None = None
        self._failed = threading.Event()
        self._failure: TrialError | None = None
        self._ending = False

    def __enter__(self) -> _Others:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        for process in self._processes.values():
            process.kill()
        if self._thread is not None:
            self._thread.join()
        for process in self._processes.values():
            process.close()

    def add(self, process: RankProcess | FarProcess) -> None:
        """One that has been told what to do."""
        self._processes[process.connection] = process

    def wait_until_ready(self) -> None:
        """Return when all have their examples. Raises what keeps one from it."""
        for process in self._processes.values():
            heard = process.hear()
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
        waiting = dict(self._processes)
        while waiting:
            heard_from = wait(list(waiting))
            for connection in [one for one in waiting if one in heard_from]:
                heard = waiting.pop(connection).hear()
                if isinstance(heard, TrialError) and self._failure is None and not self._ending:
                    self._failure = heard
                    self._failed.set()
                    on_failure()
