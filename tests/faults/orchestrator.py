"""One `sweeper start` in a process of its own, and the processes below it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.fakes.warm_command import WarmProcess

COMMAND = Path(sys.executable).with_name("sweeper")
HANG_SECONDS = 120.0
"""How long a start may go on without training or ending before it counts as hung."""


_leaving = threading.Event()
_started: list[Orchestrator] = []


class Left(Exception):
    """Whoever runs the faults was stopped: nothing is started any more."""


@dataclass(frozen=True)
class Orchestrator:
    """A start of the installed command, leader of a process group of its own."""

    process: subprocess.Popen[bytes] | WarmProcess
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)

    def end_group(self) -> None:
        """Leave nothing of it: helpers of Ray linger in the group for a minute."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def workers(self) -> list[psutil.Process]:
        """The processes in which trials run, by pid."""
        return self._below(lambda process: process.cmdline()[0].startswith("ray::Runner"))

    def raylets(self) -> list[psutil.Process]:
        """The process that keeps Ray's workers."""
        return self._below(lambda process: process.name() == "raylet")

    def _below(self, is_wanted: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error, IndexError):
                    if is_wanted(process):
                        found.append(process)
        return sorted(found, key=lambda process: process.pid)


def launch(
    file: Path, logs: Path, env: Mapping[str, str], options: Sequence[str], core: int, *, cold: bool = False
) -> Orchestrator:
    """Begin `sweeper start` on that file.

    Args:
        file: study.yaml.
        logs: folder for what it says.
        env: its environment.
        options: more words of its command line.
        core: where a start in one process is kept: it then trains with one thread, as a worker of Ray does, and
            comes to the same numbers.
        cold: in a new interpreter, whose start the environment can change.
    """
    if _leaving.is_set():
        raise Left
    number = len(list(logs.glob("*.out")))
    out, err = logs / f"{number:02d}.out", logs / f"{number:02d}.err"
    command = [str(COMMAND), "start", str(file), *options]
    kept_on = core if "--in-process" in options else None
    process = (_cold if cold else _warm)(command, dict(env), file.parent, out, err, kept_on)
    _started.append(Orchestrator(process, out, err))
    return _started[-1]


def _warm(command: list[str], env: dict[str, str], cwd: Path, out: Path, err: Path, core: int | None) -> WarmProcess:
    return WarmProcess(command, env, cwd, out, err, core=core)


def _cold(
    command: list[str], env: dict[str, str], cwd: Path, out: Path, err: Path, core: int | None
) -> subprocess.Popen[bytes]:
    pinned = [] if core is None else [str(shutil.which("taskset")), "-c", str(core)]
    with out.open("wb") as said, err.open("wb") as cried:
        return subprocess.Popen(
            [*pinned, *command], stdout=said, stderr=cried, env=env, cwd=cwd, start_new_session=True
        )


def leave() -> None:
    """End all that was started, and start nothing any more."""
    _leaving.set()
    for process in list(_started):
        if process.runs:
            process.end_group()


def wait_for(process: Orchestrator, seconds: float) -> int | None:
    """The exit code; ``None`` if it still runs after that time."""
    deadline = time.monotonic() + seconds
    while process.runs and time.monotonic() < deadline:
        time.sleep(0.05)
    return process.process.returncode
