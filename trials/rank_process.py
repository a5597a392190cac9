"""A process that trains as one of the ranks of a trial, seen from the process that started it.

They share a socket, by which either hears at once that the other is gone, however it ended. A rank never imports the
script of whoever started it, which may have no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Pipe

from trials.errors import ProcessLost, TrialError

READY, DONE = "ready", "done"
"""What a rank says when it has its examples, and when it has trained; anything else is an error."""

_CHILD = """
import sys
from multiprocessing.connection import Connection
parent = Connection(int(sys.argv[1]))
sys.path[:] = parent.recv()
from trials.parallel import follow
follow(parent)
"""


@dataclass(frozen=True)
class Job:
    """What a rank is to do."""

    recipe_json: str
    folder: str
    rank: int
    size: int
    """How many ranks there are."""
    device: str
    store: str
    """By which the ranks find each other: a file, or ``tcp://HOST:PORT`` where they are on several nodes."""
    threads: int
    host: str = ""
    """The address of its node among several."""


class RankProcess:
    """A child process on this machine.

    Args:
        paths: where it finds its modules.
        job: what it is to do.
    """

    def __init__(self, paths: Sequence[str], job: Job) -> None:
        self._job = job
        self.connection, theirs = Pipe()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        with contextlib.suppress(OSError):  # one that died at once is heard of later
            self.connection.send(list(paths))
            self.connection.send(job)

    def hear(self) -> str | TrialError:
        """What it says next, or how it died."""
        try:
            heard: str | TrialError = self.connection.recv()
        except (EOFError, OSError):
            return self._how_it_died()
        return heard

    def kill(self) -> None:
        """End it; it holds nothing that would have to be put away."""
        self._process.kill()

    def close(self) -> None:
        """Forget a process that has ended."""
        self._process.wait()
        self.connection.close()
        self._stderr.close()

    def _how_it_died(self) -> ProcessLost:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        words = self._stderr.read().decode(errors="replace").split("\n")
        said = next((f": {line.strip()}" for line in reversed(words) if line.strip()), "")
        where = f" on {self._job.host}" if self._job.host else ""
        return lost(self._job.rank, self._job.size, f"{where} died ({how}{said})")


def lost(rank: int, size: int, what: str) -> ProcessLost:
    """The error for a rank that ``what`` happened to."""
    return ProcessLost(
        f"train.data_parallel: process {rank} of {size}{what}; start again to go on from the newest checkpoint"
    )
