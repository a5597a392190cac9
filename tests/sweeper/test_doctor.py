"""What `sweeper doctor` says of one good study in which a record at a time was broken, and how it mends that."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from sweeper.catalog import Catalog, TrialRow
from sweeper.doctor import doctor
from sweeper.errors import StudyHeld
from sweeper.lease import Lease
from sweeper.settings import Settings
from sweeper.start import start
from sweeper.study_folder import StudyFolder

STUDY = """\
study: small
data: {source: digits}
model: {build: linear}
train: {epochs: 2, optimizer: {name: sgd, lr: {log: [0.001, 1.0]}}}
search: {trials: 3, sampler: random, pruner: {name: none}}
storage: {extendable: 2}
"""
GOOD = "small: nothing disagrees (3 trials, 6 epochs, 4 files, 4 runs checked)"


class Patient:
    """A finished study in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = Settings(home, f"sqlite:///{home / 'sweeper.db'}", f"sqlite:///{home / 'mlflow.db'}", None)
        self.folder = StudyFolder(home, "small")

    def doctor(self, **said: Any) -> tuple[int, list[str]]:
        out = io.StringIO()
        code = doctor("small", self.settings, Console(file=out, width=400), **said)
        return code, out.getvalue().splitlines()

    def start(self) -> str:
        out = io.StringIO()
        assert start(self.home / "study.yaml", self.settings, Console(file=out, width=400), in_process=True) == 0
        return out.getvalue()

    def sql(self, *statements: str, file: str = "sweeper.db") -> None:
        with closing(sqlite3.connect(self.home / file)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.settings.tracking_uri, self.settings.tracking_uri)

    def trial(self, number: int) -> TrialRow:
        with closing(Catalog(self.settings.database_url)) as catalog:
            return catalog.trial(catalog.study("small").id, number)

    @property
    def winner(self) -> dict[str, Any]:
        with closing(Catalog(self.settings.database_url)) as catalog:
            return catalog.study("small").winner or {}

    def bad(self) -> list[str]:
        """What disagrees, without the study's name."""
        code, lines = self.doctor()
        assert code == 1
        return [line.removeprefix("small: ") for line in lines]

    def mend(self) -> None:
        """All is mended, and then good."""
        code, lines = self.doctor(repair=True)
        assert (code, lines[-1]) == (0, GOOD), lines
        assert all(line.startswith("small: mended: ") for line in lines[:-1])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home, and a copy of what it was when the study had just finished."""
    folder = tmp_path_factory.mktemp("doctor")
    home, kept = folder / "home", folder / "kept"
    home.mkdir()
    (home / "study.yaml").write_text(STUDY)
    Patient(home).start()
    shutil.copytree(home, kept)
    return home, kept


@pytest.fixture
def patient(good: tuple[Path, Path]) -> Iterator[Patient]:
    # In its old place each time: MLflow notes where its files are.
    home, kept = good
    shutil.rmtree(home)
    shutil.copytree(kept, home)
    yield Patient(home)


def test_a_good_study_is_good(patient: Patient) -> None:
    before = {path: path.stat().st_mtime_ns for path in patient.folder.root.rglob("*")}
    assert patient.doctor() == (0, [GOOD])
    assert patient.doctor(repair=True) == (0, [GOOD])
    assert {path: path.stat().st_mtime_ns for path in patient.folder.root.rglob("*")} == before
    code, lines = patient.doctor(as_json=True)
    assert (code, json.loads("\n".join(lines))) == (
        0,
        {
            "studies": [
                {
                    "study": "small",
                    "running": False,
                    "mended": [],
                    "findings": [],
                    "notes": [],
                    "checked": {"trials": 3, "epochs": 6, "files": 4, "runs": 4},
                }
            ]
        },
    )
