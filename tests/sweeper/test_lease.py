from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.catalog import Catalog
from sweeper.errors import StudyHeld
from sweeper.lease import STALE_SECONDS, Lease, is_held
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
        study.id, expected=None, owner="x", owner_host=host(), owner_pid=dead.pid, heartbeat_at=9e9
    )
    with Lease(catalog, "digits"):
        assert catalog.study("digits").owner_pid == os.getpid()


def test_the_lease_of_another_machine_holds_until_its_heart_stops(catalog: Catalog) -> None:
    row = dataclasses.replace(
        catalog.study("digits"), owner="x", owner_host="elsewhere", owner_pid=1, heartbeat_at=1000.0
    )
    assert is_held(row, now=1000.0 + STALE_SECONDS - 1)
    assert not is_held(row, now=1000.0 + STALE_SECONDS + 1)
