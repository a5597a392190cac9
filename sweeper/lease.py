"""One orchestrator a study: a lease in the catalog with a heartbeat, taken over when stale."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import datetime
from types import TracebackType

from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import StoreError, StudyHeld
from sweeper.provenance import host

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0


def is_held(study: StudyRow, now: float | None = None) -> bool:
    """Whether a living orchestrator holds the study.

    On this machine the process itself is asked; elsewhere a heartbeat older than `STALE_SECONDS` counts as death.
    """
    if study.owner is None or study.heartbeat_at is None:
        return False
    if study.owner_host == host() and study.owner_pid is not None:
        return _is_alive(study.owner_pid)
    return (now or time.time()) - study.heartbeat_at < STALE_SECONDS


class Lease:
    """Holds a study while the orchestrator runs.

    Raises:
        StudyHeld: another one holds it; the message says who, where and since when.
    """

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
            owner_pid=os.getpid(),
            owner_since=now,
            heartbeat_at=now,
        )
        if not taken:
            holder = self._catalog.study(self._name)
            since = datetime.fromtimestamp(holder.owner_since or now).strftime("%Y-%m-%d %H:%M:%S")
            raise StudyHeld(
                f"study {self._name!r} is run by process {holder.owner_pid} on {holder.owner_host} since {since}; "
                f"see it with: sweeper show {self._name}"
            )
        self._study_id = study.id
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._catalog.swap_owner(self._study_id, expected=self._owner, owner=None)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                self._catalog.swap_owner(self._study_id, expected=self._owner, heartbeat_at=time.time())
            except StoreError:
                # The database is away; the next beat tries again, and the loop itself reports what it cannot write.
                continue


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
