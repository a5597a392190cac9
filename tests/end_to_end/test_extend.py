"""A finished study is extended by the installed command, interrupted in every way, and ends as if it had not been."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sweeper_command import SweeperCommand

from sweeper.catalog import Catalog, EpochRow, StudyRow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS, ADDED = 2, 6
STUDY = f"""\
study: slow
data: {{source: digits}}
model: {{build: "slowly:build"}}
train:
  epochs: {EPOCHS}
  batch_size: 256
  optimizer: {{name: sgd, lr: {{log: [0.01, 0.2]}}, momentum: 0.9}}
  ema: {{decay: 0.9}}
average: {{best_n: 2}}
search: {{sampler: random, trials: 3, pruner: {{name: none}}}}
workers: {{concurrent: 2, cpus: 0.5}}
"""
NET = """\
import time
from pathlib import Path

from torch import nn


class Slow(nn.Sequential):
    def forward(self, images):
        if not Path(__file__).with_name("go").exists():
            time.sleep(0.1)
        return super().forward(images)


def build(num_classes):
    return Slow(nn.Flatten(), nn.Linear(64, num_classes))
"""


class Records:
    """The catalog of a home, looked at while somebody else writes it."""

    def __init__(self, sweeper: SweeperCommand) -> None:
        self.root = sweeper.home / "studies" / "slow"
        self.catalog = Catalog(f"sqlite:///{sweeper.home / 'sweeper.db'}", create=False)

    @property
    def row(self) -> StudyRow:
        return self.catalog.study("slow")

    def epochs(self) -> list[EpochRow]:
        return [epoch for epochs in self.catalog.epochs(self.row.id).values() for epoch in epochs]

    def states(self) -> list[tuple[str, bool]]:
        return [(trial.state, trial.is_extended) for trial in self.catalog.trials(self.row.id)]

    def assert_named_files_are_whole(self) -> None:
        winner = self.row.winner
        assert winner is not None
        package = self.root / ("winner" if winner["package"] == 1 else f"winner-{winner['package']}")
        named = {self.root / kept.path: kept.sha256 for kept in self.catalog.weights(self.row.id)}
        named |= {self.root / winner["path"]: winner["sha256"], package / "weights.safetensors": winner["sha256"]}
        for path, sha256 in named.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256, path

    def outcome(self) -> dict[str, Any]:
        """All that must not depend on interruptions."""
        study, winner = self.row, self.row.winner
        assert winner is not None
        return {
            "curves": [(epoch.trial_id, epoch.epoch, epoch.metrics) for epoch in self.epochs()],
            "recipes": [trial.recipe for trial in self.catalog.trials(study.id)],
            "weights": self.catalog.weights(study.id),
            "winner": {name: said for name, said in winner.items() if name not in ("model_version", "looks")},
            "looks": [look["sha256"] for look in winner["looks"]],
            "state": study.state,
        }


@pytest.fixture
def study(sweeper: SweeperCommand) -> Path:
    """A study of a user's own model, which takes its time unless there is a file `go` beside it."""
    folder = sweeper.cwd / "slow"
    folder.mkdir()
    (folder / "slowly.py").write_text(NET)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "go").touch()
    return folder / "study.yaml"


def start(sweeper: SweeperCommand, study: Path, *flags: str) -> None:
    done = sweeper.run("start", study, *flags)
    assert (done.returncode, done.stderr) == (0, "")


EXTEND = ("extend", "slow", "--trials", "2", "--epochs", f"+{ADDED}")


def test_killed_at_any_moment_an_extension_ends_as_if_it_had_not_been(
    sweeper: SweeperCommand, study: Path, tmp_path: Path
) -> None:
    unbroken = SweeperCommand(tmp_path / "unbroken", sweeper.cwd)
    start(unbroken, study, "--in-process")
    done = unbroken.run(*EXTEND, "--in-process")
    assert (done.returncode, done.stderr) == (0, "")

    start(sweeper, study, "--in-process")
    records = Records(sweeper)
    kept_from_before = {kept.trial: kept for kept in records.catalog.weights(1)}
    (study.parent / "go").unlink()
    trained: dict[int, EpochRow] = {epoch.id: epoch for epoch in records.epochs()}
    before = len(trained)

    def killed(is_so: Callable[[], bool], *arguments: str | Path, may_be: tuple[str, ...] = ("stopped",)) -> None:
        with sweeper.running(*arguments, "--in-process") as started:
            started.wait_until(is_so)
            started.process.kill()
            started.process.wait()
        records.assert_named_files_are_whole()
        epochs = {epoch.id: epoch for epoch in records.epochs()}
        for known, epoch in trained.items():
            assert (epochs[known].metrics, epochs[known].reported_at) == (epoch.metrics, epoch.reported_at)
        trained.update(epochs)
        assert sweeper.show("slow")["state"] in may_be

    killed(lambda: ("waiting", True) in records.states() or ("running", True) in records.states(), *EXTEND)
    refused = sweeper.run(*EXTEND)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith(f" is not finished, expected one that is; finish it with: sweeper start {study}\n")
    killed(lambda: len(records.epochs()) >= before + 2, "start", study)
    killed(lambda: records.states().count(("complete", True)) == 1, "start", study)
    assert {kept.trial: kept for kept in records.catalog.weights(1)} != kept_from_before
    killed(lambda: records.states().count(("complete", True)) == 2, "start", study)
    (study.parent / "go").touch()
    # The winner is known just before the study is finished, and the kill may come after that.
    killed(lambda: (records.row.winner or {})["test_looks"] == 2, "start", study, may_be=("stopped", "finished"))
    start(sweeper, study, "--in-process")
    records.assert_named_files_are_whole()
    outcome = records.outcome()
    assert outcome == Records(unbroken).outcome()
    assert (outcome["state"], outcome["winner"]["test_looks"]) == ("finished", 2)
    assert {epoch.id: epoch.reported_at for epoch in trained.values()}.items() <= {
        epoch.id: epoch.reported_at for epoch in records.epochs()
    }.items()
    assert_mlflow_has_all(sweeper, records)


def test_an_extension_stopped_by_ctrl_c_goes_on_where_it_was(sweeper: SweeperCommand, study: Path) -> None:
    """With Ray, from another folder than the study's, whose file has gone meanwhile and comes back."""
    start(sweeper, study, "--in-process")
    records = Records(sweeper)
    before = len(records.epochs())
    (study.parent / "go").unlink()
    study.rename(study.with_name("away.yaml"))
    with sweeper.running(*EXTEND) as started:
        started.wait_until(lambda: len(records.epochs()) > before)
        started.press_ctrl_c()
        assert started.process.wait(timeout=60) == 130
        said = started.out.read_text().splitlines()
        assert said[0].startswith("extending trials 000")
        assert said[0].endswith("cosine from 0.1 of each trial's top learning rate to 0 over 6 epochs")
        assert said[-1] == f"stopped; continue with: sweeper start {study}"
        assert started.err.read_text() == ""
    assert sorted(records.states()) == [("complete", False), ("waiting", True), ("waiting", True)]
    assert sorted(statuses(sweeper).values()) == ["FINISHED", "KILLED", "KILLED", "KILLED"]
    trained = {epoch.id: epoch.reported_at for epoch in records.epochs()}
    study.with_name("away.yaml").rename(study)
    (study.parent / "go").touch()
    start(sweeper, study)
    assert sorted(records.states()) == [("complete", False), ("complete", True), ("complete", True)]
    assert trained.items() <= {epoch.id: epoch.reported_at for epoch in records.epochs()}.items()
    assert_mlflow_has_all(sweeper, records)
    assert [
        len(trial["epochs"]) for trial in sorted(sweeper.show("slow")["trials"], key=lambda t: len(t["epochs"]))
    ] == [
        EPOCHS,
        EPOCHS + ADDED,
        EPOCHS + ADDED,
    ]
    shown = sweeper.run("show", "slow")
    assert shown.stdout.count(f" {EPOCHS}+{ADDED} ") == 2


def statuses(sweeper: SweeperCommand) -> dict[str, str]:
    """Name and status of each MLflow run."""
    client = MlflowClient(sweeper.tracking_uri, sweeper.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("slow").experiment_id])
    return {run.info.run_name: run.info.status for run in runs}


def assert_mlflow_has_all(sweeper: SweeperCommand, records: Records) -> None:
    """Each epoch once in its trial's run, at the time of its first report; all runs ended; the winner registered."""
    assert statuses(sweeper) == dict.fromkeys(["slow", *(f"trial {n:04d}" for n in range(3))], "FINISHED")
    client, row = MlflowClient(sweeper.tracking_uri, sweeper.tracking_uri), records.row
    for trial in records.catalog.trials(row.id):
        epochs = records.catalog.epochs(row.id)[trial.id]
        assert [epoch.epoch for epoch in epochs] == list(range(1, EPOCHS + ADDED * trial.is_extended + 1))
        history = client.get_metric_history(str(trial.run_id), "train.loss")
        assert [(point.step, point.timestamp) for point in history] == [
            (epoch.epoch, int(epoch.reported_at * 1000)) for epoch in epochs
        ]
    assert row.winner is not None
    found = client.get_model_version_by_alias("slow", "best")
    assert str(found.version) == row.winner["model_version"]
    assert found.tags["sweeper.weights_sha256"] == row.winner["sha256"]
