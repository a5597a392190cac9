"""Whether Ray is still there, which its own client finds out late or never.

With the raylet of a Ray of our own gone no worker can be placed any more; without its GCS each call hangs for a minute,
and then the client ends the whole process. So both are watched from here: as processes where they are ours, and by
knocking at the address of the GCS.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable

import psutil

from sweeper.errors import WorkersError

KNOCK_SECONDS = 5.0
"""How long an answer may take, and how far apart knocks are while all is well."""
SILENCE_SECONDS = 20.0
"""How long a cluster may be out of reach. Well below the minute after which Ray ends the process."""
SERVICES = ("gcs_server", "raylet")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MEMORY = re.compile(r"was (\S+ used / \S+ limit)")
_FACT = re.compile(r"^\s*(pid|ip): (\S+)$", re.MULTILINE)


class Pulse:
    """Whether Ray is still there.

    Args:
        address: where its GCS listens, `HOST:PORT`; anything else is not asked.
        own: whether it is a Ray of our own, whose processes are children of this one.
        clock: seconds that only ever grow.
    """

    def __init__(self, address: str, *, own: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._services = [child for child in psutil.Process().children() if _is_service(child)] if own else []
        self._knocked_at = clock()
        self._silent_since: float | None = None

    def answers(self) -> bool:
        """Whether it answers at this moment: else most that is asked of it hangs until Ray ends the process."""
        return all(map(_name, self._services)) if self._services else knock(self._address) is None

    def check(self) -> None:
        """Raise :class:`WorkersError` if Ray is gone."""
        for service, name in zip(self._services, map(_name, self._services), strict=True):
            if not name:
                raise WorkersError(f"Ray died: its process {service.pid} ({' or '.join(SERVICES)}) is gone")
        if self._services or self._clock() - self._knocked_at < KNOCK_SECONDS:
            return
        refusal = knock(self._address)
        self._knocked_at = now = self._clock()
        if refusal is None:
            self._silent_since = None
            return
        if self._silent_since is None:
            self._silent_since = now
        silent_seconds = now - self._silent_since
        if silent_seconds >= SILENCE_SECONDS:
            raise WorkersError(
                f"the Ray cluster at {self._address} has not answered for {silent_seconds:.0f} s ({refusal})"
            )


def knock(address: str) -> str | None:
    """Why nothing listens at `HOST:PORT`; ``None`` if something does, or if only Ray knows where that is."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return None  # `auto`, or a name
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def descendants() -> list[psutil.Process]:
    """Processes that this one started, and those that they started."""
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


def end(processes: list[psutil.Process]) -> None:
    """Kill those of ``processes`` that still run."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def node_is_gone(said: str) -> bool:
    """Whether Ray says that a worker is gone because its node is.

    >>> node_is_gone("The actor died because its node has died."), node_is_gone("its worker process has died")
    (True, False)
    """
    return any(words in said for words in ("node has died", "node was terminated", "is unavailable"))


def cause_of_death(said: str) -> str:
    """One line of what Ray says when a worker is gone.

    >>> cause_of_death("The actor died.\\n\\tpid: 71\\n\\tip: 192.0.2.7\\n... its worker process has died. ...")
    'the worker died: process 71 on 192.0.2.7 was killed or crashed'
    """
    text = _COLOUR.sub("", said).strip()
    facts = dict(_FACT.findall(text))
    who = f"process {facts['pid']} on {facts['ip']}" if {"pid", "ip"} <= facts.keys() else "its process"
    if "worker process has died" in text:
        return f"the worker died: {who} was killed or crashed"
    if node_is_gone(text):
        return f"the worker died: the node of {who} does not answer any more"
    if "running low on memory" in text:
        used = _MEMORY.search(text)
        return f"the worker died: its node ran low on memory ({used[1] if used else 'Ray does not say how low'})"
    return f"the worker died: {next(iter(text.splitlines()), 'Ray does not say why')}"


def _is_service(process: psutil.Process) -> bool:
    return any(_name(process).startswith(service) for service in SERVICES)


def _name(process: psutil.Process) -> str:
    """The name of a process that runs, else nothing: one that was killed is a zombie until it is waited for."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE or not process.is_running() else process.name()
    except psutil.Error:
        return ""
