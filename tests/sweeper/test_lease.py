from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper import lease
from sweeper.catalog import Catalog
from sweeper.errors import StudyHeld
from sweeper.lease import STALE_SECONDS, Lease, is_held, machine
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


def test_the_lease_of_another_machine_holds_until_its_heart_stops(catalog: Catalog) -> None:
    row = dataclasses.replace(
        catalog.study("digits"),
        owner="x",
        owner_host=host(),
        owner_machine="elsewhere",
        owner_pid=os.getpid(),
        heartbeat_at=1000.0,
    )
    assert is_held(row, now=1000.0 + STALE_SECONDS - 1)
    assert not is_held(row, now=1000.0 + STALE_SECONDS + 1)


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


def test_whoever_lost_the_study_is_interrupted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    held = Lease(catalog, "digits")
    held.__enter__()
    row = catalog.study("digits")
    assert catalog.swap_owner(row.id, expected=row.owner, owner="another")
    with pytest.raises(KeyboardInterrupt):
        for _ in range(600):  # one long sleep would not be cut short
            time.sleep(0.05)
    held.__exit__(None, None, None)
    assert held.lost
    assert catalog.study("digits").owner == "another", "the lease of the other is left alone"
