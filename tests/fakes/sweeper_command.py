"""The `sweeper` command over a home of its own, run as a user runs it: in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from warm_command import WarmProcess

COMMAND = Path(sys.executable).with_name("sweeper")
PATIENCE_SECONDS = 240.0
"""How long anything may take on a busy machine before it counts as stuck."""


@dataclass(frozen=True)
class SweeperCommand:
    """Runs `sweeper` on one SWEEPER_HOME, from one working folder."""

    home: Path
    cwd: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment, with nothing in it that points at a service elsewhere."""
        elsewhere = ("SWEEPER_DATABASE_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS")
        return {k: v for k, v in os.environ.items() if k not in elsewhere} | {"SWEEPER_HOME": str(self.home)}

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.home / 'mlflow.db'}"

    def run(self, *arguments: str | Path, **changed_env: str) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        with TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            process = self._started(arguments, out, err, **changed_env)
            try:
                code = process.wait(PATIENCE_SECONDS)
            finally:
                process.kill()
            return subprocess.CompletedProcess(process.args, code, out.read_text(), err.read_text())

    def run_cold(self, *arguments: str | Path, **changed_env: str) -> subprocess.CompletedProcess[str]:
        """The same by the installed script, in a new interpreter."""
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.env | changed_env,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def show(self, study: str) -> dict[str, Any]:
        """What `sweeper show --json` prints."""
        done = self.run("show", study, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def running(self, *arguments: str | Path, **changed_env: str) -> Iterator[Running]:
        """A command that goes on in the background; nothing of it is left afterwards."""
        out, err = self.cwd / "out.txt", self.cwd / "err.txt"
        process = self._started(arguments, out, err, **changed_env)
        try:
            yield Running(process, out, err)
        finally:
            # The group outlives its leader where that was killed: helpers of Ray linger for a minute.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _started(self, arguments: Iterable[str | Path], out: Path, err: Path, **changed_env: str) -> WarmProcess:
        return WarmProcess([str(COMMAND), *map(str, arguments)], self.env | changed_env, self.cwd, out, err)


@dataclass(frozen=True)
class Running:
    """A command in the background, leader of a process group of its own, and the files it writes to."""

    process: WarmProcess
    out: Path
    err: Path

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Poll until it is so; the command must not end before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            assert self.process.poll() is None, f"ended: {self.out.read_text()}\n{self.err.read_text()}"
            assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s: {self.out.read_text()}"
            time.sleep(0.1)


@dataclass(frozen=True)
class FinishedStudy:
    """A study that ran to its end, and where everything of it is."""

    sweeper: SweeperCommand
    file: Path
    """study.yaml, committed to a git repository of its own."""
    commit: str
    done: subprocess.CompletedProcess[str]
    """The command that ran it."""
    shown: dict[str, Any]
    """What `sweeper show --json` says of it."""
    pulled: Path
    """The folder that `sweeper pull` made."""
