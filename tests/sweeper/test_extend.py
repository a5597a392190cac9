"""`sweeper extend`, in one process: what it refuses, and the life of a study that is extended again and again."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from fake_training import write_checkpoint
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from sweeper.catalog import Catalog, StudyRow, WeightsRow
from sweeper.cli import main
from sweeper.errors import StudyError, StudyFailed
from sweeper.extend import extend
from sweeper.lease import Lease
from sweeper.pull import pull
from sweeper.runner import set_threads
from sweeper.settings import Settings, load_settings
from sweeper.slots import cores
from sweeper.start import start
from sweeper.study_folder import StudyFolder
from trials import EpochReport, Recipe, load_model, run_trial
from trials.data import load_splits
from trials.fit.schedule import extension_factor
from trials.fit.step import steps_per_epoch
from trials.result import WeightsFile

STUDY = """\
study: small
data: {source: digits, validation: 0.3}
model: {build: "extended_net:build"}
train:
  epochs: 2
  batch_size: 128
  optimizer: {name: sgd, lr: {log: [0.01, 0.2]}, momentum: 0.9}
  schedule: {name: cosine}
  ema: {decay: 0.5}
average: {best_n: 2}
search: {sampler: random, trials: 3, pruner: {name: none}}
storage: {extendable: 2}
"""
NET = """\
from torch import nn


def build(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))
"""


# -- what is refused --------------------------------------------------------------------------------------------


@pytest.fixture
def finished(home: Path) -> Settings:
    """A finished study as the catalog knows one; trial 3 was pruned, and trial 1 has nothing to go on from."""
    settings = load_settings()
    with closing(Catalog(settings.database_url)) as catalog:
        row = catalog.add_study(
            "small", digest="d", text=STUDY, metric="validation.accuracy", trials_asked=4, file=str(home / "gone.yaml")
        )
        for number, value in enumerate((0.5, 0.75, 0.625)):
            recipe = {"seed": number, "extensions": []}
            trial = catalog.add_trial(row.id, number, params={}, recipe=recipe)
            metrics = {"validation.accuracy": value, "validation.loss": 1 - value}
            file = WeightsFile(kind="raw", path="raw", metrics=metrics, epoch=2, bytes=1, sha256="s")
            catalog.end_trial(trial.id, "complete", value=value, facts={"epochs": 2}, weights=[(file, "raw", value)])
            if number != 1:
                write_checkpoint(StudyFolder(home, "small").trial(number) / "checkpoints/epoch-0002")
        pruned = catalog.add_trial(row.id, 3, params={}, recipe={"seed": 3, "extensions": []})
        catalog.end_trial(pruned.id, "pruned", value=0.9)
        catalog.set_study(row.id, state="finished")
    return settings


REFUSED = {
    "no epochs": ({"epochs": 0}, "--epochs: found 0, expected at least 1"),
    "no trials": ({"trials": 0}, "--trials: found 0, expected at least 1"),
    "a rate of 0": (
        {"lr": 0.0},
        "--lr: found 0, expected more than 0 and at most 1: a share of each trial's top learning rate",
    ),
    "a rate above 1": (
        {"lr": 1.5},
        "--lr: found 1.5, expected more than 0 and at most 1: a share of each trial's top learning rate",
    ),
    "more than there are": (
        {"trials": 4},
        "--trials: found 4, expected at most 3: so many trials of study 'small' are complete",
    ),
    "a pruned one": ({"numbers": (0, 3)}, "--trial: found 3, expected a complete trial of study 'small': 0, 1, 2"),
    "nothing to go on from": (
        {},
        "trial 0001 cannot be extended: found no state after its epoch 2; the study keeps that of its best 2 trials "
        "(storage.extendable), unless storage.limit or a full disk took it, or an extension failed midway; name one "
        "that has it with --trial",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line_and_changes_nothing(case: str, finished: Settings) -> None:
    said, line = REFUSED[case]
    with closing(Catalog(finished.database_url)) as catalog:
        before = catalog.trials(1)
        with pytest.raises(StudyError) as caught:
            extend("small", finished, Console(file=io.StringIO()), **{"epochs": 3, **said})
        assert str(caught.value) == line
        assert catalog.trials(1) == before
        assert (catalog.study("small").state, catalog.study("small").owner) == ("finished", None)

    words = {"epochs": "--epochs", "trials": "--trials", "lr": "--lr"}
    arguments = [f"{words[name]}={value}" for name, value in said.items() if name in words]
    arguments += [f"--trial={number}" for number in said.get("numbers", ())]
    done = CliRunner().invoke(
        main, ["extend", "small", *(arguments if "epochs" in said else ["--epochs=+3", *arguments])]
    )
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"error: {line}\n")


def test_a_trial_whose_state_is_damaged_is_refused_by_the_file(finished: Settings) -> None:
    manifest = StudyFolder(finished.home, "small").trial(2) / "checkpoints/epoch-0002/manifest.json"
    manifest.write_text("{")
    with pytest.raises(StudyError) as caught:
        extend("small", finished, Console(file=io.StringIO()), epochs=3, numbers=(2,))
    assert str(caught.value) == (
        f"trial 0002 cannot be extended: {manifest}: found it damaged (not what a trial writes), expected the state "
        "after its epoch 2; name another with --trial"
    )


def test_a_study_that_is_unknown_unfinished_or_run_by_another_is_refused(finished: Settings) -> None:
    def refused(name: str = "small") -> tuple[int, str]:
        done = CliRunner().invoke(main, ["extend", name, "--epochs", "3", "--trial", "0"])
        assert done.stdout == ""
        return done.exit_code, done.stderr

    assert refused("smal") == (2, "error: no study named 'smal' here; studies: small\n")
    with closing(Catalog(finished.database_url)) as catalog:
        with closing(Catalog(finished.database_url)) as other, Lease(other, "small"):
            code, line = refused()
            assert code == 1
            assert line.startswith("error: study 'small' is run by process ")
        for state in ("stopped", "failed", "running"):
            catalog.set_study(1, state=state)
            remedy = f"finish it with: sweeper start {finished.home / 'gone.yaml'}\n"
            assert refused() == (2, f"error: study 'small' is not finished, expected one that is; {remedy}")
        assert catalog.study("small").owner is None
        assert all(trial.state != "waiting" for trial in catalog.trials(1))


# -- what is done -----------------------------------------------------------------------------------------------


class Life:
    """A study in a home of its own, looked at from all sides."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = StudyFolder(settings.home, "small")
        self.catalog = Catalog(settings.database_url)
        self.client = MlflowClient(settings.tracking_uri)

    @property
    def row(self) -> StudyRow:
        return self.catalog.study("small")

    @property
    def winner(self) -> dict[str, Any]:
        assert self.row.winner is not None
        return self.row.winner

    def extend(self, **said: Any) -> list[str]:
        out = io.StringIO()
        assert extend("small", self.settings, Console(file=out, width=200), in_process=True, **said) == 0
        return out.getvalue().splitlines()

    def recipe(self, number: int) -> Recipe:
        return Recipe.model_validate_json(json.dumps(self.catalog.trial(self.row.id, number).recipe))

    def weights(self, number: int) -> list[WeightsRow]:
        return [kept for kept in self.catalog.weights(self.row.id) if kept.trial == number]

    def curve(self, number: int) -> dict[int, dict[str, float]]:
        """What the catalog has of a trial, after making sure that MLflow has the same, each epoch once."""
        trial = self.catalog.trial(self.row.id, number)
        curve = {epoch.epoch: epoch.metrics for epoch in self.catalog.epochs(self.row.id)[trial.id]}
        assert list(curve) == list(range(1, len(curve) + 1))
        for name in ("train.loss", "train.lr", "validation.accuracy"):
            history = self.client.get_metric_history(str(trial.run_id), name)
            assert [(point.step, point.value) for point in history] == [(e, curve[e][name]) for e in curve]
        return curve

    def runs(self) -> dict[str, Run]:
        experiment = self.client.get_experiment_by_name("small")
        runs = self.client.search_runs([experiment.experiment_id])
        assert len(runs) == 4
        return {run.info.run_name: run for run in runs}

    def check(self) -> None:
        """All that must hold whenever nothing runs."""
        for kept in self.catalog.weights(self.row.id):
            assert hashlib.sha256((self.folder.root / kept.path).read_bytes()).hexdigest() == kept.sha256
        winner = self.winner
        for path in (self.folder.root / winner["path"], self.folder.package(winner["package"]) / "weights.safetensors"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == winner["sha256"]
        named = {kept.path for kept in self.catalog.weights(self.row.id)}
        found = {path.relative_to(self.folder.root).as_posix() for n in range(3) for path in self.folder.weights(n)}
        assert found == named
        assert self.folder.packages() == [self.folder.package(winner["package"])]
        assert self.row.state == "finished"
        assert {name: run.info.status for name, run in self.runs().items()} == dict.fromkeys(
            ["small", "trial 0000", "trial 0001", "trial 0002"], "FINISHED"
        )
        versions = self.client.search_model_versions("name = 'small'")
        assert str(self.client.get_model_version_by_alias("small", "best").version) == winner["model_version"]
        assert len(versions) == int(winner["model_version"]), "a version for each winner, and no more"

    def history(self) -> list[optuna.trial.FrozenTrial]:
        storage = optuna.storages.RDBStorage(self.settings.database_url)
        trials = optuna.load_study(study_name="small", storage=storage).trials
        storage.remove_session()
        storage.engine.dispose()
        return trials


@pytest.fixture
def life(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    """A study that has been run, and whose file is gone."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "extended_net.py").write_text(NET)
    (place / "study.yaml").write_text(STUDY)
    settings = load_settings()
    assert start(place / "study.yaml", settings, Console(file=io.StringIO()), in_process=True) == 0
    (place / "study.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    life = Life(settings)
    yield life
    life.catalog.close()


def _by_hand(recipe: Recipe, folder: Path) -> dict[str, str]:
    """The weights of a trial that is trained, extended, killed in the midst of that, and continued, by kind."""
    set_threads(cores())

    def killed(report: EpochReport) -> bool:
        if report.epoch == recipe.extensions[0].after_epochs + 1:
            raise KeyboardInterrupt
        return True

    run_trial(recipe.model_copy(update={"extensions": ()}), folder)
    with pytest.raises(KeyboardInterrupt):
        run_trial(recipe, folder, killed)
    return {kept.kind: kept.sha256 for kept in run_trial(recipe, folder).weights}


@pytest.mark.slow
def test_the_life_of_a_study_that_is_extended_again_and_again(life: Life, tmp_path: Path) -> None:
    life.check()
    before, curves = life.winner, {number: life.curve(number) for number in range(3)}
    history = life.history()
    order = list(dict.fromkeys(kept.trial for kept in sorted(life.catalog.weights(1), key=lambda kept: -kept.value)))
    best, second, third = order
    assert {number for number in range(3) if life.folder.has_resume_point(number, 2)} == {best, second}

    # Longer training is far from over here: the best trial gets better.
    lines = life.extend(trials=2, epochs=3, lr=1.0)
    assert lines[0] == (
        f"extending trials {best:04d}, {second:04d} of study 'small' by 3 epochs: "
        "cosine from 1 of each trial's top learning rate to 0 over 3 epochs"
    )
    life.check()
    assert life.curve(third) == curves[third]
    for number in (best, second):
        curve, recipe = life.curve(number), life.recipe(number)
        assert list(curve) == [1, 2, 3, 4, 5]
        assert {epoch: curve[epoch] for epoch in (1, 2)} == curves[number]
        steps = steps_per_epoch(len(load_splits(recipe.data, "cpu").train), recipe.train)  # type: ignore[arg-type]
        for epoch in (3, 4, 5):
            share = extension_factor(recipe.extensions[0], (epoch - 2) * steps - 1, 3 * steps)
            assert curve[epoch]["train.lr"] == recipe.train.optimizer.lr * share
        kept = {kept.kind: kept.sha256 for kept in life.weights(number)}
        assert kept == _by_hand(recipe, tmp_path / f"by-hand-{number}")
        run = life.runs()[f"trial {number:04d}"]
        assert run.data.params["extensions.1.epochs"] == "3"
        assert run.data.metrics["value"] == life.catalog.trial(1, number).value
        assert run.data.tags["epochs"] == "5"
    assert life.history() == history
    assert life.winner["sha256"] != before["sha256"]
    assert (life.winner["test_looks"], life.winner["model_version"]) == (2, "2")
    assert life.runs()["small"].data.metrics["winner.test_looks"] == 2
    assert any(line.endswith(", looked at 2 times") for line in lines)
    record = pull(life.catalog, "small", life.folder, tmp_path / "best").record
    load_model(tmp_path / "best")
    assert record == life.winner

    # A failure leaves all as it was but the curve, and no new winner means no new look.
    failed, winner, weights = second, life.winner, life.catalog.weights(1)
    with pytest.raises(StudyFailed) as caught:
        life.extend(numbers=[failed], epochs=2, train="fake_training:really_fails_to_go_on")
    reason = "its extension failed: Diverged: loss is nan"
    assert str(caught.value) == f"no extension ran to its end, and the trials are what they were: {reason}"
    life.check()
    assert (life.winner, life.catalog.weights(1)) == (winner, weights)
    assert len(life.curve(failed)) == 6
    with pytest.raises(StudyError, match=f"^trial {failed:04d} cannot be extended: "):
        life.extend(numbers=[failed], epochs=2)

    # Once more, with nothing but a change of weights too small to be a better winner's, or at all.
    lines = life.extend(epochs=1, schedule="constant", lr=1e-30)
    assert lines[0] == (
        f"extending trial {best:04d} of study 'small' by 1 epoch: "
        "constant at 1e-30 of each trial's top learning rate over 1 epoch"
    )
    life.check()
    assert len(life.curve(best)) == 6
    assert [(e.after_epochs, e.epochs) for e in life.recipe(best).extensions] == [(2, 3), (5, 1)]
    assert life.history() == history

    # The file comes back and asks for less: the space is given back though nothing is left to start.
    assert life.folder.has_resume_point(best, 6)
    Path(life.row.file).write_text(STUDY.replace("extendable: 2", "extendable: 0"))
    assert start(Path(life.row.file), life.settings, Console(file=io.StringIO()), in_process=True) == 0
    life.check()
    assert not any((life.folder.trial(number) / "checkpoints").exists() for number in range(3))
