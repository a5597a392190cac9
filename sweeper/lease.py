"""One orchestrator a study: a lease in the catalog with a heartbeat, taken over when stale."""

from __future__ import annotations

import _thread
import os
import threading
import time
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

import psutil

from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import StoreError, StudyHeld
from sweeper.provenance import host

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0


def is_held(study: StudyRow, now: float | None = None) -> bool:
    """Whether a living orchestrator holds the study.

    Where this process can see it, the process itself is asked; elsewhere (another machine, another container) a
    heartbeat older than `STALE_SECONDS` counts as death.
    """
    if study.owner is None or study.heartbeat_at is None:
        return False
    if study.owner_machine == machine() and study.owner_pid is not None:
        return _running_since(study.owner_pid) == study.owner_pid_since
    return (now or time.time()) - study.heartbeat_at < STALE_SECONDS


class Lease:
    """Holds a study while the orchestrator runs.

    Raises:
        StudyHeld: another one holds it; the message says who, where and since when.
    """

    lost: bool = False
    """Whether another orchestrator took the study over, as it may when this one was asleep for long."""

    def __init__(self, catalog: Catalog, name: str) -> None:
        self._catalog, self._name = catalog, name
        self._owner = uuid.uuid4().hex
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        study = self._catalog.study(self._name)
        now = time.time()
        taken = not is_held(study) and self._catalog.swap_owner(
            study.id,
            expected=study.owner,
            owner=self._owner,
            owner_host=host(),
            owner_machine=machine(),
            owner_pid=os.getpid(),
            owner_pid_since=_running_since(os.getpid()),
            owner_since=now,
            heartbeat_at=now,
            request=None,  # what was asked of a dead orchestrator is not asked of this one
        )
        if not taken:
            holder = self._catalog.study(self._name)
            since = datetime.fromtimestamp(holder.owner_since or now).strftime("%Y-%m-%d %H:%M:%S")
            raise StudyHeld(
                f"study {self._name!r} is run by process {holder.owner_pid} on {holder.owner_host} since {since}; "
                f"should that process be dead, the study is free within {STALE_SECONDS:.0f} s"
            )
        self._study_id = study.id
        self._catalog.fence(study.id, self._owner)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        # A database that is away leaves the lease to go stale; what went wrong with it is told already.
        with suppress(StoreError):
            self._catalog.swap_owner(self._study_id, expected=self._owner, owner=None)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                kept = self._catalog.swap_owner(self._study_id, expected=self._owner, heartbeat_at=time.time())
            except StoreError:
                # The database is away; the next beat tries again, and the loop itself reports what it cannot write.
                continue
            if not kept:
                self.lost = True
                _thread.interrupt_main()
                return


def machine() -> str:
    """What tells whether a process id means the same here as there: this boot and this namespace of processes.

    A container that is restarted keeps its host name and its process ids, but not its namespace.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return host()


def _running_since(pid: int) -> float | None:
    """When the process began, or ``None`` if there is none or it is dead; a number used again began later."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        # Ticks since the boot, where there are any: the time of day they stand for moves with the clock.
        stat = Path(f"/proc/{pid}/stat")
        return float(stat.read_text().rpartition(")")[2].split()[19]) if stat.exists() else process.create_time()
    except (psutil.Error, OSError):
        return None
