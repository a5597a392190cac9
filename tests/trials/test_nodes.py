"""Ranks on other nodes: each side hears of the other's end, strangers are turned away, a trial is the same on two."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import far_ranks
import psutil
import pytest
import safetensors.torch
import torch

from trials import EpochReport, Interrupted, ProcessLost, Recipe, TrialResult, run_trial
from trials.nodes import (
    CUT_OFF_SECONDS,
    FarProcess,
    Invitation,
    Nodes,
    Reception,
    end_all_when_cut_off,
    end_when_cut_off,
    interface_of,
    join,
)
from trials.parallel import rank_devices
from trials.rank_process import DONE, READY, Job

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
PATIENCE_SECONDS = 30.0
JOB = Job("{}", "", 1, 2, "cpu", "", 1)

LAUNCHER = """
import pickle, sys, threading
from trials.nodes import join
join(pickle.load(sys.stdin.buffer))
threading.Event().wait()
"""


@pytest.fixture
def reception() -> Iterator[Reception]:
    with Reception(HOST, 2, handshake_seconds=0.2) as reception:
        yield reception


def far(reception: Reception, folder: Path, behaviour: str) -> FarProcess:
    """Rank 1, started by this process as by that of another node."""
    join(reception.invitation(1))
    process = reception.receive({1})[1]
    process.assign(far_ranks.paths(folder, behaviour), JOB)
    return process


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ranks_here() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "trials.parallel" in " ".join(child.cmdline())]


def test_a_rank_elsewhere_is_heard_as_one_here_is(reception: Reception, tmp_path: Path) -> None:
    process = far(reception, tmp_path, "finishes")
    assert [process.hear(), process.hear()] == [READY, DONE]
    process.close()
    wait_until(lambda: not ranks_here())


@pytest.mark.parametrize(
    ("behaviour", "first", "how"), [("dies", None, "exit code 1: no such GPU"), ("is_killed", READY, "SIGKILL")]
)
def test_how_a_rank_elsewhere_died_is_told(
    reception: Reception, tmp_path: Path, behaviour: str, first: str | None, how: str
) -> None:
    process = far(reception, tmp_path, behaviour)
    if first is not None:
        assert process.hear() == first
    heard = process.hear()
    process.close()
    assert isinstance(heard, ProcessLost)
    assert str(heard) == (
        f"train.data_parallel: process 1 of 2 on {HOST} died ({how}); start again to go on from the newest checkpoint"
    )


@pytest.mark.parametrize("gone", ["closed", "killed"])
def test_a_rank_ends_with_rank_0(reception: Reception, tmp_path: Path, gone: str) -> None:
    process = far(reception, tmp_path, "waits")
    assert process.hear() == READY
    assert [child.pid for child in ranks_here()] == [int((tmp_path / "pid").read_text())]
    process.kill() if gone == "killed" else process.close()
    wait_until(lambda: not ranks_here())
    process.close()


def test_a_rank_ends_with_what_started_it_and_rank_0_hears_of_it(reception: Reception, tmp_path: Path) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        assert launcher.stdin is not None
        launcher.stdin.write(pickle.dumps(reception.invitation(1)))
        launcher.stdin.close()
        process = reception.receive({1})[1]
        process.assign(far_ranks.paths(tmp_path, "waits"), JOB)
        assert process.hear() == READY
        pid = int((tmp_path / "pid").read_text())
        assert psutil.Process(pid).ppid() == launcher.pid
    finally:
        launcher.kill()
        launcher.wait()
    heard = process.hear()
    process.close()
    assert isinstance(heard, ProcessLost)
    assert f"process 1 of 2 is gone, or its node {HOST}" in str(heard)
    wait_until(lambda: ended(pid))


def test_strangers_are_turned_away(reception: Reception, tmp_path: Path) -> None:
    """One who knows another key, one who says nothing, one who hangs up; then the one who was invited."""
    invitation = reception.invitation(1)
    join(Invitation(HOST, invitation.port, b"another key", 1, 2))
    silent = socket.create_connection((HOST, invitation.port))
    socket.create_connection((HOST, invitation.port)).close()
    process = far(reception, tmp_path, "finishes")
    assert process.hear() == READY
    process.close()
    silent.close()


def test_one_who_does_not_come_is_lost(reception: Reception) -> None:
    with pytest.raises(ProcessLost, match=rf"process 1 of 2 did not come to {HOST} within 0\.05 s; start again"):
        reception.receive({1}, patience_seconds=0.05)


def test_a_node_that_cannot_reach_the_first_one_says_so() -> None:
    with Reception(HOST, 2) as closed:
        invitation = closed.invitation(1)
    why = rf"on {socket.gethostname()} cannot reach the first one at {HOST}:{invitation.port} \(Connection refused\)"
    with pytest.raises(ProcessLost, match=why):
        join(invitation)


def test_a_connection_to_a_node_that_was_cut_off_ends_within_a_minute() -> None:
    def settings(link: socket.socket) -> list[int]:
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        keepalive = link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return [keepalive, *(link.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names)]

    with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname()) as link:
        theirs, _ = server.accept()
        end_when_cut_off(link)
        _, idle_seconds, probe_seconds, probes, timeout_ms = settings(link)
        assert idle_seconds + probes * probe_seconds == timeout_ms / 1000 == CUT_OFF_SECONDS <= 60
        with theirs:
            end_all_when_cut_off("192.0.2.1")
            assert settings(theirs)[0] == 0
            end_all_when_cut_off(HOST)
            assert settings(theirs) == settings(link)


def test_the_interface_of_an_address() -> None:
    assert interface_of(HOST) == "lo"
    assert interface_of("192.0.2.255") is None


def test_processes_are_shared_out_evenly_among_nodes() -> None:
    cpu = torch.device("cpu")
    assert rank_devices(6, 100, cpu, nodes=3) == [cpu] * 2
    with pytest.raises(Exception, match="found 3 processes, expected a multiple of the 2 nodes of each trial"):
        rank_devices(3, 100, cpu, nodes=2)


RECIPE = Recipe.model_validate(
    {
        "seed": 5,
        "data": {"source": "digits"},
        "model": {"build": "mlp", "norm": "none"},
        "train": {
            "epochs": 2,
            "batch_size": 64,
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
            "ema": {"decay": 0.9},
        },
    }
)
TWO_NODES = Nodes(2, (join,), lambda: HOST)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrialResult]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, run_trial(RECIPE, folder, device="cpu")


def check_same(found: tuple[Path, TrialResult], wanted: tuple[Path, TrialResult]) -> None:
    """As close as `test_parallel.py` asks of two processes on one node."""
    for ours, theirs in zip(found[1].weights, wanted[1].weights, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-4)
        here, there = (
            safetensors.torch.load_file(folder / kept.path) for (folder, _), kept in ((found, ours), (wanted, theirs))
        )
        for name, tensor in there.items():
            torch.testing.assert_close(here[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_trial_begun_by_one_process_is_ended_by_two_nodes(alone: Any, tmp_path: Path) -> None:
    """From the midst of its first epoch on."""
    updates = iter(range(100))
    with pytest.raises(Interrupted):
        run_trial(RECIPE, tmp_path, device="cpu", stop=lambda: next(updates) == 8)
    seen = []

    def look(told: EpochReport) -> bool:
        seen.append((told.epoch, len(ranks_here())))
        return True

    result = run_trial(RECIPE, tmp_path, look, "cpu", nodes=TWO_NODES)
    assert seen == [(1, 1), (2, 1)]
    check_same((tmp_path, result), alone)


@pytest.mark.slow
def test_a_trial_that_lost_a_rank_on_another_node_is_ended_by_one_process(alone: Any, tmp_path: Path) -> None:
    def kill(_: EpochReport) -> bool:
        [rank] = ranks_here()
        rank.kill()
        return True

    with pytest.raises(ProcessLost, match=rf"process 1 of 2 on {HOST} died \(SIGKILL\); start again"):
        run_trial(RECIPE, tmp_path, kill, "cpu", nodes=TWO_NODES)
    wait_until(lambda: {"ranks", "rank"}.isdisjoint(thread.name for thread in threading.enumerate()))
    seen = []

    def look(told: EpochReport) -> bool:
        seen.append(told.epoch)
        return True

    check_same((tmp_path, run_trial(RECIPE, tmp_path, look, "cpu")), alone)
    assert seen == [1, 2], "the newest epoch is told again"
