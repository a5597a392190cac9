"""One orchestrator a study: a lease in the catalog with a heartbeat, taken over when stale."""

from __future__ import annotations

import _thread
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import psutil

from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import StoreError, StudyHeld
from sweeper.provenance import host, ray_job

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""How long an orchestrator elsewhere may be silent before its study is taken over."""
SURELY_STALE_SECONDS = 3 * BEAT_SECONDS
"""The same, where its last sign of life looks old already."""
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Clock:
    """Where a lease has its time from."""

    now: Callable[[], float] = time.time
    """Seconds since 1970: may jump, and differs from that of other machines."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds that only go forward, and mean nothing elsewhere."""
    sleep: Callable[[float], None] = time.sleep


def is_held(study: StudyRow, now: float | None = None) -> bool:
    """Whether a living orchestrator seems to hold the study: a quick look, good enough to show.

    Where this process can see it, the process itself is asked; elsewhere (another machine, another container) a
    heartbeat that is `STALE_SECONDS` away counts as death, which is right as long as the clocks agree. Only `Lease`,
    which watches, may act on it.
    """
    if study.owner is None or study.heartbeat_at is None:
        return False
    if _is_here(study):
        return _lives(study)
    return abs((now or time.time()) - study.heartbeat_at) < STALE_SECONDS


class Lease:
    """Holds a study while the orchestrator runs, and fences the catalog: whoever lost the study writes nothing more.

    The study of a process that died is taken over: at once if it ran here, and from elsewhere when its heart has not
    beaten while this one watched for `STALE_SECONDS` by its own clock. The time of day that it noted proves nothing.

    Args:
        catalog: of the study; all that is written through it from now on is fenced.
        name: the study's.
        say: told in one line what is waited for.
        clock: the time.

    Raises:
        StudyHeld: another one holds it; the message says who, where and since when.
    """

    lost: bool = False
    """Whether another orchestrator took the study over, as it may when this one was asleep for long."""

    def __init__(
        self, catalog: Catalog, name: str, say: Callable[[str], None] = lambda _: None, clock: Clock = Clock()
    ) -> None:
        self._catalog, self._name, self._say, self._clock = catalog, name, say, clock
        self._owner = uuid.uuid4().hex
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        study = self._when_free()
        now = self._clock.now()
        taken = self._catalog.swap_owner(
            study.id,
            expected=study.owner,
            beats=study.beats,
            owner=self._owner,
            owner_host=host(),
            owner_machine=machine(),
            owner_pid=os.getpid(),
            owner_pid_since=_running_since(os.getpid()),
            owner_since=now,
            heartbeat_at=now,
            job=ray_job().get("job_submission_id"),
            job_address=ray_job().get("job_address"),
            request=None,  # what was asked of a dead orchestrator is not asked of this one
        )
        if not taken:
            raise held(self._catalog.study(self._name))
        self._study_id = study.id
        self._catalog.fence(study.id, self._owner)
        self._thread.start()
        return self

    def _when_free(self) -> StudyRow:
        """The study, as soon as nobody living holds it."""
        study = self._catalog.study(self._name)
        if study.owner is None:
            return study
        if _is_here(study):
            if _lives(study):
                raise held(study)
            return study
        patience_seconds = STALE_SECONDS if is_held(study, self._clock.now()) else SURELY_STALE_SECONDS
        self._say(
            f"study {self._name!r}: waiting for a sign of life of its orchestrator on {study.owner_host}; "
            f"without one it is taken over in {patience_seconds:.0f} s"
        )
        begin = self._clock.monotonic()
        while self._clock.monotonic() - begin < patience_seconds:
            self._clock.sleep(LOOK_SECONDS)
            newer = self._catalog.study(self._name)
            if newer.owner is None:
                return newer
            if (newer.owner, newer.beats) != (study.owner, study.beats):
                raise held(newer)
        return study

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
                kept = self._catalog.beat(self._study_id, self._owner, at=self._clock.now())
            except StoreError:
                # The database is away; the next beat tries again, and the loop itself reports what it cannot write.
                continue
            if not kept:
                self.lost = True
                _thread.interrupt_main()
                return


def held(study: StudyRow) -> StudyHeld:
    """Who runs it, as the error of whoever wants to."""
    job = "" if study.job is None else f" (Ray job {study.job})"
    since = "" if study.owner_since is None else f" since {datetime.fromtimestamp(study.owner_since):%Y-%m-%d %H:%M:%S}"
    return StudyHeld(
        f"study {study.name!r} is run by process {study.owner_pid} on {study.owner_host}{job}{since}; "
        f"should that process be dead, the study is free within {STALE_SECONDS:.0f} s"
    )


def _is_here(study: StudyRow) -> bool:
    """Whether the owner's process id means the same to us."""
    return study.owner_machine == machine() and study.owner_pid is not None


def _lives(study: StudyRow) -> bool:
    return study.owner_pid is not None and _running_since(study.owner_pid) == study.owner_pid_since


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
