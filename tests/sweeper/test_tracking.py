from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import TrackingError
from sweeper.mlflow_model import log_model
from sweeper.mlflow_runs import StudyRuns
from sweeper.settings import Settings
from sweeper.tracking import Tracker
from trials.checkpoint import write_weights
from trials.data import load_splits
from trials.model.build import build_model
from trials.package import load_model, write_package
from trials.recipe import Recipe
from trials.result import EpochReport

ROOT = Path(__file__).parents[2]

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
def servers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The servers that were started; none is left afterwards."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def start_server(tmp_path: Path, servers: list[subprocess.Popen[bytes]]) -> Callable[[int], str]:
    """Starts a real MLflow server on a port; it answers when the call returns."""

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
        servers.append(process)
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    return url
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the server did not answer")

    return start


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


def _children(tracker: Tracker) -> dict[str, Run]:
    client = tracker.client
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.`sweeper.role` = 'trial'")
    by_number = {run.data.tags["sweeper.trial"]: run for run in runs}
    assert len(by_number) == len(runs), "a trial has one run"
    return by_number


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
    with catalog.write() as connection:
        connection.exec_driver_sql("UPDATE sweeper_epochs SET delivered = 0")
    again = _tracker(catalog, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    again.deliver()

    assert list(_children(again)) == ["0"], "no second run"
    assert _children(again)["0"].info.run_id == run_id
    assert [step for step, _ in _history(again, run_id, "validation.accuracy")] == [1, 2, 3], "no epoch twice"


def _local(catalog: Catalog, folder: Path, name: str = "mlflow.db") -> Tracker:
    return _tracker(catalog, f"sqlite:///{folder / name}", folder)


def _parents(tracker: Tracker) -> list[Run]:
    experiment = tracker.client.get_experiment_by_name("digits")
    return list(tracker.client.search_runs([experiment.experiment_id], filter_string="tags.`sweeper.role` = 'study'"))


def _status(tracker: Tracker) -> tuple[str, dict[str, str]]:
    (parent,) = _parents(tracker)
    return parent.info.status, {number: run.info.status for number, run in _children(tracker).items()}


def test_files_that_cannot_be_stored_withhold_no_number_and_come_later(catalog: Catalog, tmp_path: Path) -> None:
    tracker = _local(catalog, tmp_path)
    (tmp_path / "taken").write_text("a file where a folder should be")
    tracker.client.create_experiment("digits", artifact_location=(tmp_path / "taken" / "artifacts").as_uri())
    _train(catalog, 0)
    _train(catalog, 1, state="failed")
    for _ in range(3):
        assert tracker.close(), "all but the files is delivered"
    assert tracker.last_error is not None
    assert tracker.last_error.startswith(f"files are missing in MLflow at sqlite:///{tmp_path}/mlflow.db: ")
    assert len(tracker.last_error.splitlines()) == 1
    assert len(_parents(tracker)) == 1
    runs = _children(tracker)
    assert sorted(runs) == ["0", "1"]
    assert runs["0"].data.params["train.optimizer.lr"] == "0.1"
    assert [step for step, _ in _history(tracker, runs["0"].info.run_id, "train.loss")] == [1, 2, 3]
    assert {number: run.info.status for number, run in runs.items()} == {"0": "FINISHED", "1": "FAILED"}
    assert catalog.owes(_study(catalog).id)

    (tmp_path / "taken").unlink()
    tracker.deliver()
    assert catalog.owes(_study(catalog).id), "not tried again at once"
    assert tracker.close()
    assert tracker.last_error is None
    assert not catalog.owes(_study(catalog).id)
    files = {path.name: path.read_text() for path in (tmp_path / "taken").rglob("*") if path.is_file()}
    assert files.keys() == {"study.yaml", "recipe.yaml", "traceback.txt"}
    assert files["traceback.txt"] == "Traceback: line 1\nDiverged: nan"


def test_a_trial_described_twice_with_another_micro_batch_is_delivered_all_the_same(
    catalog: Catalog, tmp_path: Path
) -> None:
    # MLflow changes no param, and would refuse all that is owed of the study from then on.
    tracker = _tracker(catalog, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    number = _train(catalog, 0, state="running", epochs=1)
    tracker.deliver()
    recipe = catalog.trial(_study(catalog).id, 0).recipe
    smaller = {**recipe, "train": {**recipe["train"], "ema": 0.9, "micro_batch": 32}}
    catalog.set_trial(number, recipe=smaller, described=False)  # the answer was lost; then the memory was too small
    tracker.deliver()
    params = _children(tracker)["0"].data.params
    assert (params["train.ema"], params["train.micro_batch"]) == ("None", "32"), "as it began, and what was added"
    assert catalog.trial(_study(catalog).id, 0).described


def test_what_was_drawn_of_a_trial_is_among_its_artifacts(catalog: Catalog, tmp_path: Path) -> None:
    tracker = _local(catalog, tmp_path)
    _train(catalog, 0, state="running")
    _train(catalog, 1, state="failed")
    tracker.deliver()
    folders = {number: tmp_path / "studies" / "digits" / "trials" / f"000{number}" / "pictures" for number in (0, 1)}
    for number, folder in folders.items():
        folder.mkdir(parents=True)
        for name in ("first_layer.png", ".activations.png.tmp"):
            (folder / name).write_bytes(b"a picture of %d" % number)
    (folders[0] / "activations.png").write_bytes(b"activations")
    catalog.end_trial(catalog.trial(_study(catalog).id, 0).id, "complete", value=0.5, reason=None, facts={})
    tracker.deliver()
    assert not catalog.owes(_study(catalog).id)
    run_id = _children(tracker)["0"].info.run_id
    assert [file.path for file in tracker.client.list_artifacts(run_id)] == ["pictures", "recipe.yaml"]
    stored = {Path(file.path).name for file in tracker.client.list_artifacts(run_id, "pictures")}
    assert stored == {"first_layer.png", "activations.png"}
    picture = tracker.client.download_artifacts(run_id, "pictures/first_layer.png", str(tmp_path))
    assert Path(picture).read_bytes() == b"a picture of 0"


def _losing_its_answer(call: Callable[..., object]) -> Callable[..., object]:
    """The call, done by a server whose answer is lost."""

    def lose(*args: object, **keywords: object) -> object:
        call(*args, **keywords)
        raise ConnectionError("the answer was lost")

    return lose


def test_runs_whose_making_was_not_answered_are_not_made_twice(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = _local(catalog, tmp_path)
    _train(catalog, 0)
    for _ in range(2):  # the parent's, then the child's
        with monkeypatch.context() as patch:
            patch.setattr(tracker.client, "create_run", _losing_its_answer(tracker.client.create_run))
            with pytest.raises(TrackingError, match="the answer was lost"):
                tracker.deliver()
    tracker.deliver()
    assert len(_parents(tracker)) == 1
    assert list(_children(tracker)) == ["0"]


def test_a_run_made_twice_by_a_slow_server_is_one_in_the_end(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer comes too late, and it makes the run only after it was looked for in vain and made again."""
    tracker = _local(catalog, tmp_path)
    _train(catalog, 0)
    tracker.open_parent()
    late: list[Callable[[], object]] = []

    def give_up(*args: object, **keywords: object) -> object:
        late.append(lambda: create(*args, **keywords))
        raise ConnectionError("no answer in time")

    create = tracker.client.create_run
    with monkeypatch.context() as patch:
        patch.setattr(tracker.client, "create_run", give_up)
        with pytest.raises(TrackingError, match="no answer in time"):
            tracker.deliver()
    tracker.deliver()
    kept = _children(tracker)["0"].info.run_id
    late[0]()
    with pytest.raises(AssertionError, match="a trial has one run"):
        _children(tracker)
    tracker.delete_duplicates()
    assert _children(tracker)["0"].info.run_id == kept
    assert len(_parents(tracker)) == 1


def test_of_two_runs_found_the_earlier_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    tracker = _local(catalog, tmp_path)
    _train(catalog, 0)
    trial = catalog.trial(_study(catalog).id, 0)
    runs = StudyRuns(tracker.settings, _study(catalog), {})
    parent = tracker.open_parent()
    earlier, later = runs.make_child(trial, parent), runs.make_child(trial, parent)
    again = _local(catalog, tmp_path)
    again.deliver()
    assert _children(again)["0"].info.run_id == earlier != later
    assert [step for step, _ in _history(again, earlier, "train.loss")] == [1, 2, 3]


@pytest.mark.parametrize("left", ["complete", "running"])
def test_a_trial_whose_run_a_person_deleted_gets_another(left: str, catalog: Catalog, tmp_path: Path) -> None:
    """The rest of the delivery is not held up by it."""
    tracker = _local(catalog, tmp_path)
    trial_id = _train(catalog, 0, state="running", epochs=2)
    _train(catalog, 1)
    tracker.deliver()
    old = _children(tracker)["0"].info.run_id
    tracker.client.delete_run(old)
    report = EpochReport(epoch=3, epochs=3, metrics={"train.loss": 0.1}, seconds=2.0)
    if left == "complete":
        catalog.add_epoch(trial_id, report)
        catalog.end_trial(trial_id, "complete", value=0.5)
    _train(catalog, 2)
    going_on = _local(catalog, tmp_path)
    if left == "running":  # stumbles over it when it sets the runs of the study running again
        going_on.interval_seconds = 60.0
        going_on.start()
    assert going_on.close()
    runs = _children(going_on)
    assert sorted(runs) == ["0", "1", "2"]
    assert runs["0"].info.run_id != old
    steps = [step for step, _ in _history(going_on, runs["0"].info.run_id, "train.loss")]
    assert steps == ([1, 2, 3] if left == "complete" else [1, 2])
    assert not catalog.owes(_study(catalog).id)


def test_an_experiment_that_a_person_deleted_is_restored(catalog: Catalog, tmp_path: Path) -> None:
    tracker = _local(catalog, tmp_path)
    _train(catalog, 0)
    tracker.deliver()
    experiment = tracker.client.get_experiment_by_name("digits").experiment_id
    tracker.client.delete_experiment(experiment)
    _train(catalog, 1)
    again = _local(catalog, tmp_path)
    assert again.close(), again.last_error
    assert again.client.get_experiment_by_name("digits").experiment_id == experiment
    assert _status(again) == ("RUNNING", {"0": "FINISHED", "1": "FINISHED"})


def test_an_mlflow_that_does_not_answer_is_not_waited_for_longer_than_said(catalog: Catalog, tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()  # takes the call, and never says a word
        tracker = _tracker(catalog, f"http://127.0.0.1:{deaf.getsockname()[1]}", tmp_path)
        tracker.start()
        assert not tracker.close(patience_seconds=0.01)
        assert tracker.last_error == f"MLflow at {tracker.settings.tracking_uri}: no answer within 0.01 s"
        assert catalog.study("digits").run_id is None


def test_one_whose_study_was_taken_over_tells_no_more_of_it(catalog: Catalog, tmp_path: Path) -> None:
    tracker = _local(catalog, tmp_path)
    tracker.interval_seconds = 0.01
    catalog.swap_owner(tracker.study.id, expected=None, owner="another", owner_pid=7, owner_host="there")
    catalog.fence(tracker.study.id, "this one")
    tracker.start()
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "tracker")
    thread.join(60.0)
    assert not thread.is_alive(), "without having been told to stop"
    assert tracker.last_error == "study 'digits' was taken over by process 7 on there"
    assert not tracker.close()


@pytest.mark.slow
def test_a_server_that_is_away_and_then_killed_in_the_midst_gets_everything_once(
    catalog: Catalog, tmp_path: Path, start_server: Callable[[int], str], servers: list[subprocess.Popen[bytes]]
) -> None:
    """Not there at first; killed with -9 between the calls of a delivery; started again on the same store."""
    port = _free_port()
    tracker = _tracker(catalog, f"http://ada:secret@127.0.0.1:{port}", tmp_path)
    tracker.interval_seconds = 0.1
    tracker.start()
    for number in range(4):
        _train(catalog, number)
    assert not tracker.close()
    assert tracker.last_error is not None
    assert f"127.0.0.1:{port}" in tracker.last_error
    assert "secret" not in tracker.last_error
    assert len(tracker.last_error.splitlines()) == 1

    start_server(port)
    _kill_after(9, servers[-1], tracker)
    assert not tracker.close(), "it was killed in the midst"
    assert any(trial.run_id for trial in catalog.trials(_study(catalog).id)), "and not before"
    start_server(port)
    tracker = _tracker(catalog, f"http://ada:secret@127.0.0.1:{port}", tmp_path)
    assert tracker.close(), tracker.last_error
    runs = _children(tracker)
    assert sorted(runs) == ["0", "1", "2", "3"]
    assert len(_parents(tracker)) == 1
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run in runs.values():
        for metric in ("train.loss", "validation.accuracy", "epoch.seconds"):
            assert [step for step, _ in _history(tracker, run.info.run_id, metric)] == [1, 2, 3]
    assert not catalog.owes(_study(catalog).id)


def _kill_after(calls: int, server: subprocess.Popen[bytes], tracker: Tracker) -> None:
    """Have the server killed just before that call of the client's, or one that comes right after it."""
    count = itertools.count(1)

    class Client(MlflowClient):
        def __getattribute__(self, name: str) -> Any:
            if name in ("create_run", "log_batch", "set_terminated", "search_runs") and next(count) == calls:
                os.killpg(server.pid, 9)
                server.wait()
            return super().__getattribute__(name)

    tracker.client.__class__ = Client


def test_another_mlflow_gets_everything_and_so_does_the_first_again(catalog: Catalog, tmp_path: Path) -> None:
    study = _study(catalog)
    _train(catalog, 0)
    first = _local(catalog, tmp_path, "first.db")
    assert first.owes()
    first.deliver()
    assert not first.owes()
    catalog.set_study(study.id, winner={"trial": 0, "model_version": "7"})

    second = _local(catalog, tmp_path, "second.db")
    assert second.owes()
    second.deliver()
    assert not second.owes()
    (run,) = _children(second).values()
    assert run.data.tags["mlflow.parentRunId"] == _parents(second)[0].info.run_id == _study(catalog).run_id
    assert run.data.params["train.optimizer.lr"] == "0.1"
    assert run.info.status == "FINISHED"
    assert [step for step, _ in _history(second, run.info.run_id, "train.loss")] == [1, 2, 3]
    assert _study(catalog).winner == {"trial": 0}, "its model is not registered there"

    _train(catalog, 1)
    again = _local(catalog, tmp_path, "first.db")
    again.deliver()
    assert len(_parents(again)) == 1
    runs = _children(again)
    assert sorted(runs) == ["0", "1"]
    assert all([step for step, _ in _history(again, r.info.run_id, "train.loss")] == [1, 2, 3] for r in runs.values())


def test_an_mlflow_that_was_deleted_is_filled_again(catalog: Catalog, tmp_path: Path) -> None:
    _train(catalog, 0)
    _local(catalog, tmp_path).deliver()
    (tmp_path / "mlflow.db").rename(tmp_path / "deleted.db")
    assert _local(catalog, tmp_path).owes()
    # Another process, as far as MLflow's cache of open databases goes, and the same address.
    made_anew = _local(catalog, tmp_path, "empty.db")
    catalog.set_study(_study(catalog).id, tracking_uri=f"sqlite:///{tmp_path / 'empty.db'}")
    made_anew.deliver()
    assert _status(made_anew) == ("RUNNING", {"0": "FINISHED"})
    assert [step for step, _ in _history(made_anew, _children(made_anew)["0"].info.run_id, "train.loss")] == [1, 2, 3]


def test_runs_deleted_by_a_person_are_made_anew(catalog: Catalog, tmp_path: Path) -> None:
    tracker = _local(catalog, tmp_path)
    _train(catalog, 0)
    tracker.deliver()
    old = {str(_study(catalog).run_id), str(_children(tracker)["0"].info.run_id)}
    for run_id in old:
        tracker.client.delete_run(run_id)
    _train(catalog, 1)
    assert _local(catalog, tmp_path).close()
    assert _status(tracker) == ("RUNNING", {"0": "FINISHED", "1": "FINISHED"})
    assert not old & {run.info.run_id for run in _children(tracker).values()}


def test_a_study_begun_anew_has_runs_of_its_own(catalog: Catalog, tmp_path: Path) -> None:
    _train(catalog, 0, state="failed")
    before = _local(catalog, tmp_path)
    before.deliver()
    catalog.reset_study(_study(catalog).id)
    _train(catalog, 0)
    again = _local(catalog, tmp_path)
    again.deliver()
    assert again.open_parent() != before.open_parent()
    runs = [
        run for run in again.client.search_runs(["1"]) if run.data.tags.get("mlflow.parentRunId") == again.open_parent()
    ]
    assert [(run.data.tags["sweeper.trial"], run.info.status) for run in runs] == [("0", "FINISHED")]


@pytest.mark.parametrize("said", ["KILLED", "FAILED"])
def test_runs_left_open_are_killed_and_run_again_when_the_study_goes_on(
    said: str, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(catalog, 0)
    _train(catalog, 1, state="running")
    tracker = _local(catalog, tmp_path)
    assert tracker.close()
    assert _status(tracker) == ("RUNNING", {"0": "FINISHED", "1": "RUNNING"})
    catalog.set_trial(catalog.trial(_study(catalog).id, 1).id, state="waiting")
    tracker.end(said)
    assert _status(tracker) == (said, {"0": "FINISHED", "1": "KILLED"})

    looking = _local(catalog, tmp_path)
    looking.deliver()
    assert _status(looking) == (said, {"0": "FINISHED", "1": "KILLED"}), "nothing runs by looking"

    going_on = _local(catalog, tmp_path)
    going_on.interval_seconds = 60.0  # delivered below, by hand
    going_on.start()
    with monkeypatch.context() as patch:
        patch.setattr(going_on.client, "update_run", _losing_its_answer(lambda *_, **__: None))
        with pytest.raises(TrackingError):
            going_on.deliver()
    assert going_on.close(), "one failure is made good"
    assert _status(going_on) == ("RUNNING", {"0": "FINISHED", "1": "RUNNING"})


MODULE = """\
import numpy as np
from torch import nn
from trials.data import Source

def model(input_shape, num_classes):
    return nn.Linear(3, num_classes)

def data():
    targets = np.arange(60) % 2
    return Source(np.eye(60, 3, dtype=np.float32), targets, ("even", "odd"))
"""
PREDICT = """\
import mlflow, numpy as np
print(mlflow.pyfunc.load_model("models:/digits@best").predict(np.zeros((1, 3), dtype=np.float32)).tolist())
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a user's own model, on data of the user's own: for all zeros it gives the odds of its bias, 1:3."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "odds_of_ones_own.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    recipe = Recipe.model_validate(
        {
            "data": {"source": "odds_of_ones_own:data"},
            "model": {"build": "odds_of_ones_own:model", "arguments": {"input_shape": [3]}},
        }
    )
    weights = {"weight": torch.ones(2, 3), "bias": torch.tensor([0.0, math.log(3.0)])}
    write_weights(tmp_path / "weights.safetensors", weights)
    splits = load_splits(recipe.data, torch.device("cpu"))
    # The zeros become something else in the model's eyes, the same for both classes.
    modules = [tmp_path / "code" / "odds_of_ones_own.py"]
    write_package(tmp_path / "package", recipe, tmp_path / "weights.safetensors", splits, modules)
    return tmp_path / "package"


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_model_is_registered_once_and_loads_without_the_users_folder(
    catalog: Catalog, package: Path, tmp_path: Path
) -> None:
    tracker = _local(catalog, tmp_path)
    assert log_model(tracker, package, name="digits", requirements=["torch"]) == "1"
    # The process died before the catalog was told of it, and before the alias was set.
    tracker.client.delete_registered_model_alias("digits", "best")
    again = _local(catalog, tmp_path)
    assert log_model(again, package, name="digits", requirements=["torch"]) == "1"
    (version,) = again.client.search_model_versions("name = 'digits'")
    assert version.run_id == _study(catalog).run_id
    assert str(again.client.get_model_version_by_alias("digits", "best").version) == "1"

    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PREDICT],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "MLFLOW_TRACKING_URI": tracker.settings.tracking_uri, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ((even, odd),) = json.loads(done.stdout)
    assert (even, odd) == (pytest.approx(0.25), pytest.approx(0.75))


PREDICT_ROWS = """\
import mlflow, pandas
frame = pandas.DataFrame({"advice": ["buy it", "no"], "place": ["town", None], "size": [50, 70]})
print(mlflow.pyfunc.load_model("models:/prices@best").predict(frame).tolist())
print(mlflow.pyfunc.load_model("models:/places@best").predict(pandas.DataFrame({"text": ["buy it", "no"]})).tolist())
"""


def _pack(folder: Path, data: dict[str, str], build: str) -> tuple[Path, list[list[float]]]:
    """An untrained model of that data, packed, and what it answers to two rows."""
    recipe = Recipe.model_validate({"data": data, "model": {"build": build}})
    splits = load_splits(recipe.data, torch.device("cpu"))
    torch.manual_seed(0)
    model = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
    write_weights(folder / "weights.safetensors", model.state_dict())
    write_package(folder / "package", recipe, folder / "weights.safetensors", splits)
    model, preprocess = load_model(folder / "package")
    if "text" in data:
        return folder / "package", model(preprocess(["buy it", "no"])).softmax(dim=1).tolist()
    rows = [{"size": 50, "place": "town"}, {"size": 70, "place": None}]
    return folder / "package", model(preprocess(rows)).tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_models_of_tables_and_texts_take_columns_by_name(tmp_path: Path) -> None:
    rows = [
        f"{50 + index},{'town' if index % 2 else 'field'},{(50 + index) * 1000},{'buy it' if index % 2 else 'no'}"
        for index in range(60)
    ]
    (tmp_path / "houses.csv").write_text("\n".join(["size,place,price,advice", *rows]) + "\n")
    source = f"csv:{tmp_path / 'houses.csv'}"
    data = {
        "prices": {"source": source, "target": "price", "task": "regression", "drop": ["advice"]},
        "places": {"source": source, "target": "place", "text": "advice"},
    }
    expected = []
    for name, build in (("prices", "mlp"), ("places", "text_gru")):
        catalog = Catalog(f"sqlite:///{tmp_path / name}.db")
        row = catalog.add_study(name, digest="d", text="", metric="validation.loss", trials_asked=1)
        settings = Settings(tmp_path, catalog.url, f"sqlite:///{tmp_path / 'mlflow.db'}", None)
        package, answers = _pack(tmp_path / name, data[name], build)
        log_model(Tracker(settings, catalog, row, "", {}), package, name=name, requirements=[])
        catalog.close()
        expected.append(answers)

    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PREDICT_ROWS],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [np.shape(answers) for answers in found] == [(2, 1), (2, 2)]
    for answers, wanted in zip(found, expected, strict=True):
        assert answers == pytest.approx(np.array(wanted), rel=1e-5)
