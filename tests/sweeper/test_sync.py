"""What `sweeper sync` delivers, and what it says of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from sweeper.catalog import Catalog
from sweeper.errors import StudyHeld, TrackingError
from sweeper.lease import Lease
from sweeper.settings import Settings
from sweeper.sync import sync
from trials.result import EpochReport


class Home:
    """A home with one study of two trials, three epochs each, of which MLflow has heard nothing."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.settings = Settings(folder, f"sqlite:///{folder / 'a.db'}", f"sqlite:///{folder / 'mlflow.db'}", None)
        self.catalog = Catalog(self.settings.database_url)
        self.study = self.catalog.add_study(
            "small", digest="d", text=file.read_text(), metric="validation.accuracy", trials_asked=4, file=str(file)
        )
        for number in range(2):
            trial = self.catalog.add_trial(self.study.id, number, params={}, recipe={"seed": number})
            for epoch in range(1, 4):
                report = EpochReport(epoch=epoch, epochs=3, metrics={"train.loss": 1 / epoch}, seconds=1.0)
                self.catalog.add_epoch(trial.id, report)
        self.catalog.end_trial(self.catalog.trial(self.study.id, 0).id, "complete", value=0.5)

    def sync(self) -> str:
        out = io.StringIO()
        assert sync("small", self.settings, Console(file=out, width=400)) == 0
        return out.getvalue()


@pytest.fixture
def home(tmp_path: Path, write_study: Callable[..., Path]) -> Home:
    return Home(tmp_path, write_study())


def test_what_is_owed_is_delivered_once_and_nothing_is_left_running(home: Home) -> None:
    """The study was stopped by kill -9 while MLflow was away."""
    home.catalog.set_study(home.study.id, state="running")
    where = f"MLflow at {home.settings.tracking_uri}"
    assert home.sync() == f"delivered to {where}: 6 epochs of 2 runs of study 'small'\n"
    assert home.sync() == f"{where} has all of study 'small'; nothing to deliver\n"
    client = MlflowClient(home.settings.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert sorted((run.data.tags.get("sweeper.trial", "study"), run.info.status) for run in runs) == [
        ("0", "FINISHED"),
        ("1", "KILLED"),
        ("study", "KILLED"),
    ]
    for run in runs:
        if "sweeper.trial" in run.data.tags:
            assert [m.step for m in client.get_metric_history(run.info.run_id, "train.loss")] == [1, 2, 3]


def test_a_finished_study_is_handed_over_with_its_model(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model itself is registered in test_tracking.py."""
    winner = {"trial": 0, "test_looks": 1, "package": 1, "selection": {}, "test": {}}
    home.catalog.set_study(home.study.id, state="finished", winner=winner)
    packed: list[Path] = []

    def log_model(tracker: object, package: Path, *, name: str, requirements: list[str]) -> str:
        packed.append(package)
        return "3"

    monkeypatch.setattr("sweeper.hand_over.log_model", log_model)
    where = f"MLflow at {home.settings.tracking_uri}"
    assert home.sync() == f"delivered to {where}: 6 epochs of 2 runs of study 'small', and its model as version 3\n"
    assert packed == [home.settings.home / "studies/small/winner"]
    assert home.catalog.study("small").winner == {**winner, "model_version": "3"}
    assert home.sync() == f"{where} has all of study 'small'; nothing to deliver\n"
    assert len(packed) == 1


def test_a_study_that_runs_delivers_by_itself(home: Home) -> None:
    with Lease(home.catalog, "small"), pytest.raises(StudyHeld, match="which delivers by itself; watch it with: "):
        home.sync()


def test_an_mlflow_that_is_away_is_said_in_one_line(home: Home) -> None:
    home.settings = Settings(home.settings.home, home.settings.database_url, "http://127.0.0.1:9", None)
    with pytest.raises(TrackingError) as caught:
        home.sync()
    assert str(caught.value).startswith("MLflow at http://127.0.0.1:9: ")
    assert len(str(caught.value).splitlines()) == 1
    assert home.catalog.owes(home.study.id)
    assert home.catalog.study("small").owner is None, "the study is free again"
