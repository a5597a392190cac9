from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeper.catalog import Catalog, StudyRow
from sweeper.settings import Settings
from sweeper.tracking import Tracker, connect, flatten
from trials.result import EpochReport

Server = tuple[subprocess.Popen[bytes], str]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'a.db'}")
    catalog.add_study("digits", digest="d", text="study: digits\n", metric="validation.accuracy", trials_asked=2)
    yield catalog
    catalog.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """Starts a real MLflow server on a port; it answers when the call returns."""
    started = []

    def start(port: int) -> str:
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
        command += ["--artifacts-destination", str(tmp_path / "artifacts")]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,
        )
        started.append(process)
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    return url
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the server did not answer")

    yield start
    for process in started:
        os.killpg(process.pid, 9)
        process.wait()


def _tracker(catalog: Catalog, tracking_uri: str, folder: Path) -> Tracker:
    settings = Settings(folder, catalog.url, tracking_uri, None)
    return Tracker(settings, catalog, _study(catalog), "study: digits\n", {"host": "here", "git.commit": "abc"})


def _study(catalog: Catalog) -> StudyRow:
    return catalog.study("digits")


def _train(catalog: Catalog, number: int, state: str = "complete", epochs: int = 3) -> int:
    recipe = {"seed": 40 + number, "train": {"ema": None, "optimizer": {"name": "sgd", "lr": 0.1 * (number + 1)}}}
    trial = catalog.add_trial(_study(catalog).id, number, params={"train.optimizer.lr": 0.1}, recipe=recipe)
    for epoch in range(1, epochs + 1):
        metrics = {"validation.accuracy": 0.1 * epoch + number, "train.loss": 1.0 / epoch}
        catalog.add_epoch(trial.id, EpochReport(epoch=epoch, epochs=3, metrics=metrics, seconds=2.0))
    if state != "running":
        facts = {"device": "cpu", "weights": {"ema.validation.accuracy": 0.5}}
        if state == "failed":
            facts = {"traceback": "Traceback: line 1\nDiverged: nan"}
        catalog.end_trial(
            trial.id, state, value=0.5, reason="Diverged: nan" if state == "failed" else None, facts=facts
        )  # type: ignore[arg-type]
    return trial.id


def _children(tracker: Tracker) -> dict[str, object]:
    client = tracker.client
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.`sweeper.role` = 'trial'")
    return {run.data.tags["sweeper.trial"]: run for run in runs}


def _history(tracker: Tracker, run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in tracker.client.get_metric_history(run_id, metric)]


def test_what_the_catalog_knows_is_what_mlflow_shows(catalog: Catalog, tmp_path: Path) -> None:
    tracker = _tracker(catalog, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    _train(catalog, 0)
    _train(catalog, 1, state="failed", epochs=1)
    _train(catalog, 2, state="pruned", epochs=2)
    _train(catalog, 3, state="running", epochs=1)
    tracker.deliver()

    runs = _children(tracker)
    assert {number: run.info.status for number, run in runs.items()} == {
        "0": "FINISHED",
        "1": "FAILED",
        "2": "KILLED",
        "3": "RUNNING",
    }
    first = runs["0"]
    assert first.data.params == {
        "seed": "40",
        "train.ema": "None",
        "train.optimizer.name": "sgd",
        "train.optimizer.lr": "0.1",
    }
    assert first.data.tags["mlflow.parentRunId"] == _study(catalog).run_id
    assert (first.data.tags["host"], first.data.tags["git.commit"], first.data.tags["seed"]) == ("here", "abc", "40")
    assert first.data.metrics["ema.validation.accuracy"] == 0.5
    assert _history(tracker, first.info.run_id, "validation.accuracy") == [
        (1, pytest.approx(0.1)),
        (2, pytest.approx(0.2)),
        (3, pytest.approx(0.3)),
    ]
    trial = catalog.trials(_study(catalog).id)[0]
    assert first.info.start_time == int(trial.started_at * 1000)
    assert first.info.end_time == int((trial.ended_at or 0) * 1000)
    assert runs["1"].data.tags["reason"] == "Diverged: nan"
    text = Path(tracker.client.download_artifacts(runs["1"].info.run_id, "traceback.txt", str(tmp_path)))
    assert text.read_text() == "Traceback: line 1\nDiverged: nan"
    study_file = Path(tracker.client.download_artifacts(str(_study(catalog).run_id), "study.yaml", str(tmp_path)))
    assert study_file.read_text() == "study: digits\n"
    assert not catalog.owed_epochs(_study(catalog).id, 10)


def test_delivery_twice_logs_once(catalog: Catalog, tmp_path: Path) -> None:
    """An orchestrator that died after MLflow heard and before the catalog noted it delivers again."""
    tracker = _tracker(catalog, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    trial_id = _train(catalog, 0)
    tracker.deliver()
    run_id = str(_children(tracker)["0"].info.run_id)

    catalog.set_trial(trial_id, run_id=None, delivered=False)
    catalog.set_study(_study(catalog).id, run_id=None)
    with catalog._write() as connection:
        connection.exec_driver_sql("UPDATE sweeper_epochs SET delivered = 0")
    again = _tracker(catalog, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    again.deliver()

    assert list(_children(again)) == ["0"], "no second run"
    assert _children(again)["0"].info.run_id == run_id
    assert [step for step, _ in _history(again, run_id, "validation.accuracy")] == [1, 2, 3], "no epoch twice"


@pytest.mark.slow
def test_a_server_that_is_away_gets_everything_later_once(
    catalog: Catalog, tmp_path: Path, start_server: Callable[[int], str]
) -> None:
    port = _free_port()
    tracker = _tracker(catalog, f"http://ada:secret@127.0.0.1:{port}", tmp_path)
    tracker.interval_seconds = 0.1
    tracker.start()
    _train(catalog, 0)
    assert not tracker.close()
    assert tracker.last_error is not None
    assert f"127.0.0.1:{port}" in tracker.last_error
    assert "secret" not in tracker.last_error
    assert len(tracker.last_error.splitlines()) == 1

    start_server(port)
    assert tracker.close(), "what was owed is delivered"
    runs = _children(tracker)
    assert list(runs) == ["0"]
    steps = [step for step, _ in _history(tracker, runs["0"].info.run_id, "validation.accuracy")]
    assert steps == [1, 2, 3]
    assert not catalog.owes(_study(catalog).id)


def test_names_of_nested_sections_are_dotted_paths() -> None:
    tree = {"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": None}
    assert flatten(tree) == {"a.b.c": 1, "a.d": [], "e": {}, "f": None}


def test_a_local_store_is_made_at_first_use(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "", f"sqlite:///{tmp_path / 'mlflow.db'}", None)
    assert connect(settings).search_experiments()[0].name == "Default"
    assert (tmp_path / "mlflow.db").exists()
