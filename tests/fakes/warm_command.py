"""The `sweeper` command in a process of its own that need not import torch and MLflow first, which takes ten seconds.

A server has imported them and forks for each command: session, environment, folder, files and signals are as where a
shell starts it. The tests of the command line themselves start it cold.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

IMPORTS = (
    "torch._dynamo",  # by the first optimizer
    "torchvision",
    "sklearn.datasets",
    "mlflow.pyfunc",
    "optuna",
    "trials.train",
    "trials.examples",
    "sweeper.cli",
    "sweeper.start",
    "sweeper.search",
)
"""What every study loads; not Ray, which reads the environment while it is imported."""


class WarmProcess:
    """A command that a warm server has forked; the part of `subprocess.Popen` that tests use.

    It may be kept on one ``core``.
    """

    def __init__(
        self, arguments: list[str], env: dict[str, str], cwd: Path, out: Path, err: Path, *, core: int | None = None
    ) -> None:
        self.args: list[str] = arguments
        self.returncode: int | None = None
        for file in (out, err):
            file.write_text("")  # now: what an earlier command said there must not be taken for this one's words
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(_server()[0]))
        asked = {"arguments": arguments, "env": env, "cwd": str(cwd), "out": str(out), "err": str(err), "core": core}
        self._server.sendall(json.dumps(asked).encode() + b"\n")
        self._said = self._server.makefile()
        self.pid = int(self._said.readline())

    def poll(self) -> int | None:
        """The exit code as `subprocess.Popen` has it, or ``None`` while it runs."""
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self._hear()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._hear()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """What `kill -9` does."""
        self.send_signal(signal.SIGKILL)

    def _hear(self) -> None:
        self.returncode = int(self._said.readline())
        self._said.close()
        self._server.close()


@cache
def _server() -> tuple[Path, subprocess.Popen[bytes]]:
    """The socket of this process's server, and the server, which ends when this process does."""
    place = Path(tempfile.mkdtemp(prefix="warm-")) / "socket"
    # A thread that an import starts would not be there after a fork.
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([sys.executable, __file__, str(place)], stdin=subprocess.PIPE, env=env)
    while not place.exists():
        assert process.poll() is None, "the warm server ended while it imported"
        time.sleep(0.1)
    return place, process


def serve(place: Path) -> tuple[list[str], dict[str, Any]]:
    """Fork for each command asked for; returns in the fork, with what it is to run."""
    for name in IMPORTS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for a command is waited for by nobody
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place.with_name("binding")))
    listening.listen()
    place.with_name("binding").rename(place)
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:  # whoever started this server has ended
            sys.exit()
        asking, _ = listening.accept()
        asked = json.loads(asking.makefile().readline())
        if os.fork() == 0:
            listening.close()
            command = os.fork()
            if command == 0:
                asking.close()
                return asked.pop("arguments"), asked
            _tell_its_end(command, asking)
        asking.close()


def _tell_its_end(command: int, asking: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    asking.sendall(f"{command}\n".encode())
    _, status = os.waitpid(command, 0)
    asking.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(arguments: list[str], asked: dict[str, Any]) -> None:
    """Make this fork what a shell would have started."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked["core"] is not None:
        os.sched_setaffinity(0, {asked["core"]})
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for file, number in (("/dev/null", 0), (asked["out"], 1), (asked["err"], 2)):
        opened = os.open(file, os.O_RDWR | (0 if number == 0 else os.O_CREAT | os.O_TRUNC), 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv[:] = arguments
    sys.path[0] = str(Path(arguments[0]).parent)


if __name__ == "__main__":
    become(*serve(Path(sys.argv[1])))
    from sweeper.cli import main

    main()
