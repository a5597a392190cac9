"""A detached study on a real Ray with its job server: stopped, gone on with, and through the loss of nodes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from sweeper_command import COMMAND, PATIENCE_SECONDS, SweeperCommand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDY = """\
study: far
data: {source: "my_far_task:shapes"}
model: {build: "my_far_task:net"}
train: {epochs: 5, batch_size: 32, optimizer: {name: sgd, lr: {log: [0.001, 0.1]}}}
search: {trials: 2, sampler: random, pruner: {name: none}}
workers: {concurrent: 2}
"""
# After an epoch or so in one process it is slow, as long as a file is there: long enough to be caught at it.
TASK = """\
import time
from pathlib import Path
import numpy as np
from torch import nn
from my_far_help import CLASSES
from trials.data import Source

def shapes():
    images = np.random.default_rng(0).integers(0, 256, (600, 8, 8), dtype=np.uint8)
    images[300:, 2:6, 2:6] = 255
    return Source(images, np.repeat([0, 1], 300), CLASSES)

class Net(nn.Sequential):
    calls = 0

    def forward(self, images):
        Net.calls += 1
        time.sleep(3.0 if Net.calls > 20 and Path({slow!r}).exists() else 0.0)
        return super().forward(images)

def net(num_classes):
    return Net(nn.Flatten(), nn.Linear(64, num_classes))
"""
SECRET = "correct-horse-battery"


class Head:
    """The head of a Ray, on which jobs run; killed, it takes all that ran on it along."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(32)
        self.gcs, self.server, self.client = _free_ports(3)
        self.env = {
            k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SWEEPER_", "MLFLOW_", "AWS_"))
        } | {
            "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        self._folder = folder
        self._nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gcs}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server}"

    def start(self) -> None:
        ports = (f"--port={self.gcs}", f"--dashboard-port={self.server}", f"--ray-client-server-port={self.client}")
        self._start("--head", *ports, "--dashboard-host=127.0.0.1", "--num-cpus=1")
        _wait_until(lambda: _answers(self.server) and self._alive())

    def add_node(self) -> None:
        before = self._alive()
        self._start(f"--address={self.address}", "--num-cpus=1")
        _wait_until(lambda: self._alive() > before)

    def kill_node(self) -> None:
        """The newest node, with a SIGKILL to all of it."""
        _kill(self._nodes.pop())

    def kill(self) -> None:
        while self._nodes:
            self.kill_node()

    def ask(self, path: str) -> Any:
        """What the job server answers."""
        reply = requests.get(f"{self.url}/api/{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=60)
        reply.raise_for_status()
        return reply.json()

    def _alive(self) -> int:
        nodes = self.ask("v0/nodes")["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" for node in nodes)

    def _start(self, *options: str) -> None:
        command = [COMMAND.with_name("ray"), "start", "--block", *options, "--dashboard-agent-listen-port=0"]
        ours = ("--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 << 20}")
        log = (self._folder / f"{len(self._nodes)}.log").open("w")
        self._nodes.append(
            subprocess.Popen([*command, *ours], env=self.env, stdout=log, stderr=log, start_new_session=True)
        )
        log.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        everything = psutil.Process(process.pid).children(recursive=True)
        for one in [psutil.Process(process.pid), *everything]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.5)


@pytest.fixture
def head() -> Iterator[Head]:
    # Sockets lie below it, whose paths may have a hundred letters.
    folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
    head = Head(folder)
    head.start()
    head.add_node()
    yield head
    head.kill()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_detached_study_outlives_its_terminal_its_workers_and_its_head(
    head: Head, sweeper: SweeperCommand, tmp_path: Path
) -> None:
    slow, file = tmp_path / "slow", tmp_path / "study.yaml"
    slow.touch()
    file.write_text(STUDY)
    (tmp_path / "my_far_task.py").write_text(TASK.format(slow=str(slow)))
    (tmp_path / "my_far_help.py").write_text('CLASSES = ("noise", "square")\n')
    here = {name: head.env[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")} | {
        "RAY_ADDRESS": head.address,
        "MLFLOW_TRACKING_PASSWORD": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }

    def running() -> list[dict[str, Any]]:
        (study,) = json.loads(sweeper.run("top", "far", "--json").stdout)
        return study["running"]

    done = sweeper.run_cold("start", file, "--detach", **here | {"RAY_AUTH_TOKEN": "0" * 64})
    assert done.returncode == 1
    *of_ray_itself, told = done.stderr.splitlines()
    assert told.startswith(f"error: the job server of the Ray at {head.address}: ")
    assert len(of_ray_itself) <= 1, "its C++ writes where nobody can keep it from"

    done = sweeper.run_cold("start", file, "--detach", **here)
    assert done.returncode == 0, done.stderr
    first, secrets_line, where = done.stdout.splitlines()
    assert first == f"study 'far' was submitted to the Ray at {head.url} as job sweeper-far-1"
    assert secrets_line.endswith("where Ray was started: AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_PASSWORD (a secret)")
    assert where.startswith(f"it runs on {socket.gethostname()}, ")
    assert SECRET not in json.dumps(head.ask("jobs/"))

    again = sweeper.run_cold("start", file, "--detach", **here)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith(f"error: study 'far' runs already: Ray job sweeper-far-1 at {head.url} (running)")

    # A worker's node goes, the job does not.
    _wait_until(lambda: len(running()) == 2 and all(trial["epoch"] for trial in running()))
    head.kill_node()

    # Ray itself may be told to stop the job: what ran is saved, as on ctrl-C.
    _wait_until(lambda: "continued" in sweeper.run_cold("logs", "far", **here).stdout)
    requests.post(
        f"{head.url}/api/jobs/sweeper-far-1/stop", headers={"Authorization": f"Bearer {head.token}"}, timeout=60
    ).raise_for_status()
    _wait_until(lambda: head.ask("jobs/sweeper-far-1")["status"] == "STOPPED")
    assert sweeper.show("far")["state"] == "stopped"
    said = sweeper.run_cold("logs", "far", **here).stdout.splitlines()
    assert said[-1] == f"stopped; continue with: sweeper start {file} --detach"

    # From another folder, without naming the file.
    elsewhere = SweeperCommand(sweeper.home, tmp_path.parent)
    done = elsewhere.run_cold("resume", "far", **here)
    assert done.returncode == 0, done.stderr
    assert "as job sweeper-far-2" in done.stdout
    _wait_until(running)

    # All that ran on the head is gone with it; on the next one the study goes on, and what it had is in the catalog.
    head.kill()
    assert sweeper.show("far")["state"] == "stopped"
    head.start()
    slow.unlink()
    lost = sweeper.run_cold("logs", "far", **here)
    assert (lost.returncode, lost.stdout) == (1, "")
    assert "does not know job sweeper-far-2 of study 'far'" in lost.stderr
    done = sweeper.run_cold("start", file, "--detach", **here)
    assert done.returncode == 0, done.stderr
    assert f"at {head.url} as job sweeper-far-3" in done.stdout

    followed = sweeper.run_cold("logs", "far", "-f", **here)
    assert followed.returncode == 0
    assert "winner: " in followed.stdout
    assert head.ask("jobs/sweeper-far-3")["status"] == "SUCCEEDED"
    study = sweeper.show("far")
    assert study["state"] == "finished"
    for trial in study["trials"]:
        assert [epoch["epoch"] for epoch in trial["epochs"]] == [1, 2, 3, 4, 5]
        assert trial["state"] == "complete"
    assert sweeper.run_cold("start", file, "--detach", **here).stdout == "study 'far' is finished; nothing to start\n"
