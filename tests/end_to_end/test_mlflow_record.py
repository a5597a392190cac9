"""What MLflow holds of a finished study, read with its own client and by a program that knows nothing of sweeper."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from sweeper_command import FinishedStudy

from sweeper import load_model
from trials.data import load_splits
from trials.recipe import Data

pytestmark = pytest.mark.slow

STATUS = {"complete": "FINISHED", "pruned": "KILLED"}


@pytest.fixture(scope="module")
def client(finished: FinishedStudy) -> MlflowClient:
    return MlflowClient(finished.sweeper.tracking_uri, finished.sweeper.tracking_uri)


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> list[Run]:
    """All runs of the study's experiment."""
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(scope="module")
def parent(runs: list[Run]) -> Run:
    (run,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return run


@pytest.fixture(scope="module")
def children(runs: list[Run], parent: Run) -> list[Run]:
    """The runs of the trials, by number."""
    found = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return sorted(found, key=lambda run: int(run.data.tags["sweeper.trial"]))


def test_one_parent_and_a_child_for_each_trial(
    finished: FinishedStudy, runs: list[Run], parent: Run, children: list[Run]
) -> None:
    assert len(runs) == 1 + len(finished.shown["trials"])
    assert (parent.info.run_name, parent.info.status) == ("small", "FINISHED")
    assert [run.info.run_name for run in children] == [f"trial {number:04d}" for number in range(5)]
    assert [run.info.status for run in children] == [STATUS[trial["state"]] for trial in finished.shown["trials"]]
    for run in children:
        assert parent.info.start_time <= run.info.start_time <= run.info.end_time <= parent.info.end_time


def test_params_are_the_whole_recipe(finished: FinishedStudy, client: MlflowClient, children: list[Run]) -> None:
    for trial, run in zip(finished.shown["trials"], children, strict=True):
        folder = finished.sweeper.home / "studies" / "small" / "trials" / run.data.tags["sweeper.trial"].zfill(4)
        recipe = json.loads((folder / "recipe.json").read_text())
        # Extensions come later, and each brings params of its own (test_extend.py); a param cannot be changed. What
        # other trials left is named where there is any (test_mlflow_runs.py).
        later = ("extensions", "start", "teacher", "assembly")
        assert [recipe[name] for name in later] == [[], None, None, None]
        began_with = {name: section for name, section in recipe.items() if name not in later}
        assert run.data.params == {path: str(value) for path, value in leaves(began_with)}
        sampled = {("model.build" if path == "model" else path): v for path, v in trial["params"].items()}
        assert {path: run.data.params[path] for path in sampled} == {path: str(v) for path, v in sampled.items()}
        local = client.download_artifacts(run.info.run_id, "recipe.yaml")
        assert yaml.safe_load(Path(local).read_text()) == recipe


def test_metrics_hold_every_epoch_exactly_once(
    finished: FinishedStudy, client: MlflowClient, children: list[Run]
) -> None:
    for trial, run in zip(finished.shown["trials"], children, strict=True):
        expected = defaultdict(list)
        for epoch in trial["epochs"]:
            for name, value in epoch["metrics"].items():
                expected[name].append((epoch["epoch"], value))
        assert "validation.accuracy" in expected
        for name, points in expected.items():
            history = client.get_metric_history(run.info.run_id, name)
            assert sorted((metric.step, metric.value) for metric in history) == points, name
        assert run.data.metrics["value"] == trial["value"]


def test_tags_say_where_it_came_from(finished: FinishedStudy, parent: Run, children: list[Run]) -> None:
    for run in [parent, *children]:
        tags = run.data.tags
        assert (tags["git.commit"], tags["git.dirty"]) == (finished.commit, "false")
        assert tags["host"] == socket.gethostname()
        assert tags["study.seed"] == "3"
        assert {name: tags[f"version.{name}"] for name in ("torch", "optuna", "mlflow")} == {
            name: version(name) for name in ("torch", "optuna", "mlflow")
        }
    assert [run.data.tags["seed"] for run in children] == [run.data.params["seed"] for run in children]
    assert len({run.data.tags["seed"] for run in children}) == 5


def test_the_parent_holds_the_study_file_and_what_the_winner_is_worth(
    finished: FinishedStudy, client: MlflowClient, parent: Run
) -> None:
    local = client.download_artifacts(parent.info.run_id, "study.yaml")
    assert Path(local).read_text() == finished.file.read_text()
    winner = finished.shown["winner"]
    assert parent.data.metrics["winner.trial"] == winner["trial"]
    assert parent.data.metrics["winner.selection.accuracy"] == winner["selection"]
    assert parent.data.metrics["winner.test.accuracy"] == winner["test"]


def test_the_winner_is_registered_once_as_best(finished: FinishedStudy, client: MlflowClient, parent: Run) -> None:
    assert [model.name for model in client.search_registered_models()] == ["small"]
    (registered,) = client.search_model_versions("name = 'small'")
    best = client.get_model_version_by_alias("small", "best")
    assert str(best.version) == str(registered.version) == finished.shown["winner"]["model_version"]
    assert best.run_id == parent.info.run_id


PREDICT = """\
import sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/small@best")
inputs, outputs = model.metadata.signature.inputs.inputs[0], model.metadata.signature.outputs.inputs[0]
print(inputs.type, inputs.shape, outputs.type, outputs.shape)
np.save(sys.argv[2], model.predict(np.load(sys.argv[1])))
"""


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_registered_model_predicts_what_the_pulled_one_does(finished: FinishedStudy, tmp_path: Path) -> None:
    images = load_splits(Data(source="digits"), torch.device("cpu")).test.inputs[:, 0].numpy()
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, "images.npy", "predicted.npy"],
        cwd=tmp_path,
        env=finished.sweeper.env | {"MLFLOW_TRACKING_URI": finished.sweeper.tracking_uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == f"{images.dtype} (-1, 8, 8) float32 (-1, 10)"
    predicted = np.load(tmp_path / "predicted.npy")
    model, preprocess = load_model(finished.pulled)
    with torch.no_grad():
        logits = model(preprocess(images)).double().numpy()
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(predicted, raised / raised.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


def leaves(tree: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Dotted paths and values; an empty section is a value."""
    found: list[tuple[str, object]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
