from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper import lease
from sweeper.catalog import Catalog
from sweeper.errors import StudyHeld
from sweeper.lease import BEAT_SECONDS, STALE_SECONDS, Clock, Lease, is_held, machine
from sweeper.provenance import host


@pytest.fixture
def catalog(tmp_path: Path):
    catalog = Catalog(f"sqlite:///{tmp_path / 'a.db'}")
    catalog.add_study("digits", digest="d", text="t", metric="validation.accuracy", trials_asked=1)
    yield catalog
    catalog.close()


def test_a_held_study_says_who_holds_it(catalog: Catalog) -> None:
    with (
        Lease(catalog, "digits"),
        pytest.raises(StudyHeld, match=rf"'digits' is run by process {os.getpid()} on {host()} since \d{{4}}-"),
        Lease(catalog, "digits"),
    ):
        pass


def test_of_a_ray_job_it_says_which(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray hands it to the command of a job; the next owner is none."""
    told = {"job_submission_id": "sweeper-digits-1", "job_address": "http://head:8265"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}, "metadata": told}))
    with Lease(catalog, "digits"):
        study = catalog.study("digits")
        assert (study.job, study.job_address) == ("sweeper-digits-1", "http://head:8265")
        with (
            pytest.raises(StudyHeld, match=rf"on {host()} \(Ray job sweeper-digits-1\) since "),
            Lease(catalog, "digits"),
        ):
            pass
    assert catalog.study("digits").job == "sweeper-digits-1", "where its output is, is worth knowing afterwards"
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    with Lease(catalog, "digits"):
        study = catalog.study("digits")
        assert (study.job, study.job_address) == (None, None)


def test_a_released_study_is_free(catalog: Catalog) -> None:
    with Lease(catalog, "digits"):
        assert is_held(catalog.study("digits"))
    assert not is_held(catalog.study("digits"))
    with Lease(catalog, "digits"):
        pass


def test_the_lease_of_a_dead_process_here_is_taken_over_at_once(catalog: Catalog) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    study = catalog.study("digits")
    assert catalog.swap_owner(
        study.id,
        expected=None,
        owner="x",
        owner_host=host(),
        owner_machine=machine(),
        owner_pid=dead.pid,
        owner_pid_since=1.0,
        heartbeat_at=9e9,
    )
    with Lease(catalog, "digits"):
        assert catalog.study("digits").owner_pid == os.getpid()


class Elsewhere:
    """An orchestrator on another machine, and the clock of whoever watches it, which goes on only by sleeping."""

    def __init__(self, catalog: Catalog, *, clock_ahead: float = 0.0, dies_after: float = 0.0, jump: float = 0.0):
        self.catalog, self.ahead, self.dies_after, self.jump = catalog, clock_ahead, dies_after, jump
        self.seconds = 0.0
        self.study_id = catalog.study("digits").id
        assert catalog.swap_owner(
            self.study_id,
            expected=None,
            owner="x",
            owner_host="far",
            owner_machine="elsewhere",
            owner_pid=os.getpid(),
            owner_since=1e9,
            heartbeat_at=1e9 + clock_ahead,
        )
        self.clock = Clock(now=self.now, monotonic=lambda: self.seconds, sleep=self.sleep)

    def now(self) -> float:
        return 1e9 + self.seconds + (self.jump if self.seconds > 2 else 0.0)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.seconds % BEAT_SECONDS == 0 and self.seconds <= self.dies_after:
            self.catalog.beat(self.study_id, "x", at=1e9 + self.ahead + self.seconds)


HOUR = 3600.0


@pytest.mark.parametrize("clock_ahead", [0.0, HOUR, -HOUR])
@pytest.mark.parametrize("jump", [0.0, HOUR, -HOUR])
def test_a_living_orchestrator_elsewhere_keeps_its_study_whatever_the_clocks_say(
    catalog: Catalog, clock_ahead: float, jump: float
) -> None:
    there = Elsewhere(catalog, clock_ahead=clock_ahead, jump=jump, dies_after=9e9)
    with (
        pytest.raises(StudyHeld, match=r"is run by process \d+ on far since 2001-"),
        Lease(catalog, "digits", clock=there.clock),
    ):
        pass
    assert there.seconds == BEAT_SECONDS, "told by its first beat"


@pytest.mark.parametrize("clock_ahead", [0.0, HOUR, -HOUR])
@pytest.mark.parametrize("jump", [0.0, HOUR, -HOUR])
def test_a_dead_orchestrator_elsewhere_loses_its_study_whatever_the_clocks_say(
    catalog: Catalog, clock_ahead: float, jump: float
) -> None:
    there, said = Elsewhere(catalog, clock_ahead=clock_ahead, jump=jump), []
    with Lease(catalog, "digits", said.append, there.clock):
        assert catalog.study("digits").owner_machine == machine()
    seconds = STALE_SECONDS if clock_ahead == 0 else 3 * BEAT_SECONDS
    assert there.seconds == seconds
    assert said == [
        "study 'digits': waiting for a sign of life of its orchestrator on far; "
        f"without one it is taken over in {seconds:.0f} s"
    ]


def test_a_study_that_is_released_while_watched_is_taken_at_once(catalog: Catalog) -> None:
    there = Elsewhere(catalog)

    def sleep(seconds: float) -> None:
        there.seconds += seconds
        catalog.swap_owner(there.study_id, expected="x", owner=None)

    with Lease(catalog, "digits", clock=dataclasses.replace(there.clock, sleep=sleep)):
        assert there.seconds == 1


def test_a_beat_at_the_last_moment_keeps_the_study(catalog: Catalog) -> None:
    there = Elsewhere(catalog)

    def now() -> float:
        if there.seconds >= STALE_SECONDS:  # asked for the time of the take-over
            catalog.beat(there.study_id, "x", at=there.now())
        return there.now()

    with pytest.raises(StudyHeld), Lease(catalog, "digits", clock=dataclasses.replace(there.clock, now=now)):
        pass
    assert catalog.study("digits").owner == "x"


def test_of_an_orchestrator_elsewhere_the_time_is_shown_at_a_glance(catalog: Catalog) -> None:
    Elsewhere(catalog)
    row = catalog.study("digits")
    for away, held in ((STALE_SECONDS - 1, True), (STALE_SECONDS + 1, False)):
        assert is_held(row, now=1e9 + away) is held
        assert is_held(row, now=1e9 - away) is held


def test_a_process_number_used_again_is_not_the_owner(catalog: Catalog) -> None:
    with Lease(catalog, "digits"):
        row = catalog.study("digits")
        assert is_held(row)
        assert not is_held(dataclasses.replace(row, owner_pid_since=(row.owner_pid_since or 0) - 1))


def test_a_dead_process_that_nobody_has_buried_yet_is_dead(catalog: Catalog) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert lease._running_since(zombie.pid) is None
    zombie.wait()


def test_a_lease_beats(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    with Lease(catalog, "digits", clock=Clock(now=lambda: 1234.5)):
        while catalog.study("digits").beats < 3:
            time.sleep(0.01)
        assert catalog.study("digits").heartbeat_at == 1234.5


def _wait_long() -> None:
    for _ in range(600):  # one long sleep would not be cut short
        time.sleep(0.05)


def test_whoever_lost_the_study_is_interrupted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    held = Lease(catalog, "digits")
    held.__enter__()
    row = catalog.study("digits")
    assert catalog.swap_owner(row.id, expected=row.owner, owner="another")
    with pytest.raises(KeyboardInterrupt):
        _wait_long()
    held.__exit__(None, None, None)
    assert held.lost
    with pytest.raises(StudyHeld):
        catalog.set_study(row.id, state="finished")
    assert catalog.study("digits").owner == "another", "the lease of the other is left alone"
