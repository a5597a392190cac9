from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from sweeper.errors import WorkersError
from sweeper.pulse import SILENCE_SECONDS, Pulse, cause_of_death

DIED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Runner\n\tactor_id: df18\n\tpid: 1388\n"
    "\tnamespace: 5cd4\n\tip: 192.0.2.2\nThe actor is dead because its worker process has died. Worker exit type"
)
UNREACHABLE = "The actor b913 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed"
STARVED = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: bf19) was "
    "5.84GB used / 23.54GB limit (0.248292), which exceeds the threshold"
)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (DIED, "the worker died: process 1388 on 192.0.2.2 was killed or crashed"),
        (UNREACHABLE, "the worker died: the node of its process does not answer any more"),
        (STARVED, "the worker died: its node ran low on memory (5.84GB used / 23.54GB limit)"),
        ("\x1b[36mray::Runner.start()\x1b[39m (pid=7)\nmore", "the worker died: ray::Runner.start() (pid=7)"),
        ("", "the worker died: Ray does not say why"),
    ],
)
def test_why_a_worker_died_is_one_line(said: str, line: str) -> None:
    assert cause_of_death(said) == line


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_service_of_our_own_ray_that_died_is_missed_at_once(name: str, tmp_path: Path) -> None:
    shutil.copy("/bin/sleep", tmp_path / name)
    with subprocess.Popen([tmp_path / name, "60"]) as service:
        pulse = Pulse("", own=True)
        pulse.check()
        service.kill()
        os.waitid(os.P_PID, service.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as nobody waits for it
        with pytest.raises(WorkersError, match=f"Ray died: its process {service.pid} "):
            pulse.check()


def test_a_cluster_may_be_out_of_reach_for_a_while_but_not_for_long() -> None:
    now = 0.0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = "{}:{}".format(*listening.getsockname())
        pulse = Pulse(address, own=False, clock=lambda: now)
        now = 100.0
        pulse.check()
    now += 5
    pulse.check()
    now += SILENCE_SECONDS - 1
    pulse.check()
    port = int(address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        now += 5
        pulse.check()
    now += 5
    pulse.check()
    now += SILENCE_SECONDS
    with pytest.raises(
        WorkersError, match=rf"the Ray cluster at {address} has not answered for 20 s \(Connection refused"
    ):
        pulse.check()
