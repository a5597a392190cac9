"""A study that is interrupted, by ctrl-C or worse, stands as it should and goes on from there."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sweeper_command import Running, SweeperCommand

from sweeper.catalog import Catalog

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 10
STUDY = f"""\
study: slow
data: {{source: digits}}
model: {{build: "slow_net:build"}}
train:
  epochs: {EPOCHS}
  batch_size: 256
  optimizer: {{name: sgd, lr: {{log: [0.01, 0.5]}}}}
search: {{sampler: random, trials: 3, pruner: {{name: none}}}}
workers: {{concurrent: 2, cpus: 0.5}}
"""
SLOW_NET = """\
import time
from pathlib import Path

from torch import nn


class Slow(nn.Sequential):
    def forward(self, images):
        if not Path(__file__).with_name("go").exists():
            time.sleep(0.2)
        return super().forward(images)


def build(num_classes):
    return Slow(nn.Flatten(), nn.Linear(64, num_classes))
"""


@pytest.fixture
def study(sweeper: SweeperCommand) -> Path:
    """A study of a user's own model, which takes seconds an epoch until there is a file `go` beside it."""
    folder = sweeper.cwd / "slow"
    folder.mkdir()
    (folder / "slow_net.py").write_text(SLOW_NET)
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def test_a_study_interrupted_in_every_way_goes_on_where_it_was(sweeper: SweeperCommand, study: Path) -> None:
    """By ctrl-C, by a second one while the first is being heeded, and by `kill -9`; each in a trial's next epochs."""
    with sweeper.running("start", study) as started:
        started.wait_until(lambda: epochs_known(sweeper) >= 1)
        started.press_ctrl_c()
        assert started.process.wait(timeout=60) == 130
        assert started.out.read_text().splitlines()[-1] == f"stopped; continue with: sweeper start {study}"
        assert started.err.read_text() == ""
    first = Interrupted(sweeper)
    assert statuses(sweeper)["slow"] == "KILLED"
    refused = sweeper.run("pull", "slow")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: study 'slow' has no winner yet")
    # Its trials have not ended, but their epochs are worth keeping.
    other = study.with_name("other.yaml")
    other.write_text(study.read_text().replace("batch_size: 256", "batch_size: 128"))
    refused = sweeper.run("start", other)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith(
        "\n-  batch_size: 256\n+  batch_size: 128\n   optimizer: {name: sgd, lr: {log: [0.01, 0.5]}}\n"
    )

    with sweeper.running("start", study) as started:
        started.wait_until(lambda: epochs_known(sweeper) > first.epochs_known)
        started.press_ctrl_c()
        time.sleep(0.3)  # while the workers are being stopped
        started.press_ctrl_c()
        assert started.process.wait(timeout=30) == 130
        second = Interrupted(sweeper)

        with sweeper.running("start", study) as started_anew:
            started_anew.wait_until(lambda: epochs_known(sweeper) > second.epochs_known)
            started_anew.process.kill()
            started_anew.process.wait()
            third = Interrupted(sweeper)
            (study.parent / "go").touch()
            done = sweeper.run("start", study)
            assert (done.returncode, done.stderr) == (0, "")
    for interrupted in (first, second, third):
        interrupted.assert_it_went_on()


def test_a_study_is_run_by_one_process_at_a_time(sweeper: SweeperCommand, study: Path) -> None:
    with sweeper.running("start", study, "--in-process") as started:
        started.wait_until(lambda: epochs_known(sweeper) >= 1)
        second = sweeper.run("start", study, "--in-process")
        assert (second.returncode, second.stdout) == (1, "")
        holder = f"study 'slow' is run by process {started.process.pid} on {socket.gethostname()} since "
        assert second.stderr.startswith(f"error: {holder}")
        assert sweeper.show("slow")["state"] == "running"
        stop(started)
    assert sweeper.show("slow")["state"] == "stopped"


def stop(started: Running) -> None:
    started.press_ctrl_c()
    assert started.process.wait(timeout=60) == 130
    assert started.err.read_text() == ""


def epochs_known(sweeper: SweeperCommand) -> int:
    """By the catalog itself: a command each time would take a core of its own from the study."""
    with closing(Catalog(f"sqlite:///{sweeper.home / 'sweeper.db'}", create=False)) as catalog:
        return sum(len(epochs) for study in catalog.studies() for epochs in catalog.epochs(study.id).values())


def statuses(sweeper: SweeperCommand) -> dict[str, str]:
    """Name and status of each MLflow run."""
    client = MlflowClient(sweeper.tracking_uri, sweeper.tracking_uri)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run.info.status for run in runs}


class Interrupted:
    """A study that is stopped, as it stood then."""

    def __init__(self, sweeper: SweeperCommand) -> None:
        self.sweeper, self.stopped_at, self.shown = sweeper, time.time(), sweeper.show("slow")
        assert self.shown["state"] == "stopped"
        assert [trial["number"] for trial in self.shown["trials"]] == [0, 1]
        assert {trial["state"] for trial in self.shown["trials"]} == {"waiting"}

    @property
    def epochs_known(self) -> int:
        return sum(len(trial["epochs"]) for trial in self.shown["trials"])

    def assert_it_went_on(self) -> None:
        """It is finished now, with every epoch and every trial once."""
        sweeper, after = self.sweeper, self.sweeper.show("slow")
        assert after["state"] == "finished"
        assert [(trial["number"], trial["state"]) for trial in after["trials"]] == [(n, "complete") for n in range(3)]
        assert statuses(sweeper) == {"slow": "FINISHED"} | {f"trial {n:04d}": "FINISHED" for n in range(3)}
        for trial in after["trials"]:
            assert [epoch["epoch"] for epoch in trial["epochs"]] == list(range(1, EPOCHS + 1))
        for trial, old in zip(after["trials"], self.shown["trials"], strict=False):
            assert trial["params"] == old["params"]
            assert trial["epochs"][: len(old["epochs"])] == old["epochs"]

        client = MlflowClient(sweeper.tracking_uri, sweeper.tracking_uri)
        runs = client.search_runs(
            [client.get_experiment_by_name("slow").experiment_id], "tags.`sweeper.role` = 'trial'"
        )
        known = {trial["number"]: len(trial["epochs"]) for trial in self.shown["trials"]}
        for run in runs:
            history = sorted(client.get_metric_history(run.info.run_id, "train.loss"), key=lambda metric: metric.step)
            assert [metric.step for metric in history] == list(range(1, EPOCHS + 1))
            # An epoch known before the stop was not trained again: its metric still carries the time of its report.
            earlier = sum(metric.timestamp / 1000 < self.stopped_at for metric in history)
            assert earlier == known.get(int(run.data.tags["sweeper.trial"]), 0)
