from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeper.catalog import Catalog
from sweeper.mlflow_runs import flatten
from sweeper.settings import Settings
from sweeper.tracking import Tracker
from trials.result import EpochReport


def test_names_of_nested_sections_are_dotted_paths() -> None:
    tree = {"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": None}
    assert flatten(tree) == {"a.b.c": 1, "a.d": [], "e": {}, "f": None}


def test_of_other_weights_a_run_has_the_names_and_nothing_too_long_for_mlflow(catalog: Catalog, tmp_path: Path) -> None:
    def kept(number: int) -> dict[str, Any]:
        return {"path": "p" * 200, "sha256": "f" * 64, "name": f"raw of trial {number:04d}", "value": 0.5}

    def member(number: int) -> dict[str, Any]:
        return {"weights": kept(number), "recipe": {"model": {"build": "mlp"}}, "share": 0.5}

    start, teacher = {"weights": kept(7), "epochs": 3}, {"members": [member(1), member(2)], "temperature": 2.0}
    assembly = {"name": "greedy_soup", "ingredients": [kept(number) for number in range(300)]}
    many = {f"a{index}": index for index in range(250)}
    recipe = {"seed": 4, "start": start, "teacher": teacher, "assembly": assembly, "model": {"arguments": many}}
    catalog.add_trial(1, 100_000, params={"move": "greedy soup", "seed": 1}, recipe=recipe, role="seed")
    catalog.end_trial(1, "complete", value=0.5, facts={"notes": "n" * 20_000})
    run = _deliver(catalog, tmp_path)
    names = ", ".join(f"raw of trial {number:04d}" for number in range(300))
    assert run.data.params == {
        "seed": "4",
        **{f"model.arguments.{name}": str(value) for name, value in many.items()},
        "start.weights": "raw of trial 0007",
        "start.epochs": "3",
        "teacher.members": "raw of trial 0001, raw of trial 0002",
        "teacher.temperature": "2.0",
        "assembly.name": "greedy_soup",
        "assembly.ingredients": f"{names[:1000]}..., 300 in all",
    }
    assert (run.data.tags["role"], run.data.tags["made"]) == ("seed", "move=greedy soup seed=1")
    assert run.data.tags["notes"] == "n" * 4900


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'a.db'}")
    catalog.add_study("digits", digest="d", text="study: digits\n", metric="validation.accuracy", trials_asked=1)
    yield catalog
    catalog.close()


def _deliver(catalog: Catalog, folder: Path) -> Run:
    """The run of the only trial, after all that was owed has been delivered by a process that runs the study."""
    settings = Settings(folder, catalog.url, f"sqlite:///{folder / 'mlflow.db'}", None)
    tracker = Tracker(settings, catalog, catalog.study("digits"), "study: digits\n", {}, interval_seconds=1000.0)
    tracker.start()
    assert tracker.close(), tracker.last_error
    experiment = tracker.client.get_experiment_by_name("digits")
    (run,) = tracker.client.search_runs([experiment.experiment_id], "tags.`sweeper.role` = 'trial'")
    steps = {epoch.step: epoch.value for epoch in tracker.client.get_metric_history(run.info.run_id, "train.loss")}
    assert steps == {e.epoch: 1.0 / e.epoch for epochs in catalog.epochs(1).values() for e in epochs}
    return run


def _train(catalog: Catalog, *epochs: int) -> None:
    for epoch in epochs:
        report = EpochReport(epoch=epoch, epochs=5, metrics={"train.loss": 1.0 / epoch}, seconds=2.0)
        assert catalog.add_epoch(1, report)


def test_an_extended_trial_goes_on_in_its_own_run(catalog: Catalog, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"seed": 4, "train": {"epochs": 2}, "extensions": []}
    began_with = {"seed": "4", "train.epochs": "2"}
    catalog.add_trial(1, 0, params={}, recipe=recipe)
    _train(catalog, 1, 2)
    facts = {"epochs": 2, "weights": {"weights.raw.validation.accuracy": 0.75}}
    catalog.end_trial(1, "complete", value=0.75, facts=facts)
    first = _deliver(catalog, tmp_path)
    assert (first.info.status, first.data.params, first.data.metrics["value"]) == ("FINISHED", began_with, 0.75)

    wrong, right = ({"after_epochs": 2, "epochs": epochs, "schedule": "cosine", "lr": 0.1} for epochs in (9, 1))
    catalog.extend_trials(1, {1: {**recipe, "extensions": [wrong]}})
    assert _deliver(catalog, tmp_path).info.status == "RUNNING"
    catalog.drop_extension(catalog.trial(1, 0), "its extension failed: OutOfMemory")
    dropped = _deliver(catalog, tmp_path)
    assert (dropped.info.status, dropped.data.params) == ("FINISHED", began_with), "a param cannot be taken back"
    assert dropped.data.tags["reason"] == "its extension failed: OutOfMemory"

    catalog.extend_trials(1, {1: {**recipe, "extensions": [right]}})
    _train(catalog, 3)
    going = _deliver(catalog, tmp_path)
    assert (going.info.status, going.data.metrics["value"]) == ("RUNNING", 0.75)
    facts = {"epochs": 3, "weights": {"weights.raw.validation.accuracy": 0.5}}
    catalog.end_trial(1, "complete", value=0.5, facts=facts)
    for extended in (_deliver(catalog, tmp_path), _deliver(catalog, tmp_path)):
        assert (extended.info.run_id, extended.info.status) == (first.info.run_id, "FINISHED")
        assert extended.data.params == began_with | {
            "extensions.1.after_epochs": "2",
            "extensions.1.epochs": "1",
            "extensions.1.schedule": "cosine",
            "extensions.1.lr": "0.1",
        }
        assert (extended.data.tags["epochs"], extended.data.metrics["value"]) == ("3", 0.5)
        assert extended.data.tags["reason"] == ""
        assert extended.data.metrics["weights.raw.validation.accuracy"] == 0.5
        ended_at = catalog.trial(1, 0).ended_at
        assert ended_at is not None
        assert extended.info.end_time == int(ended_at * 1000)
    catalog.extend_trials(1, {1: {**recipe, "extensions": [right, {**right, "after_epochs": 3}]}})
    catalog.end_trial(1, "complete", value=0.625, facts=facts)
    again = _deliver(catalog, tmp_path)
    assert (again.data.params["extensions.2.after_epochs"], again.data.metrics["value"]) == ("3", 0.625)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    values = client.get_metric_history(again.info.run_id, "value")
    assert [(point.step, point.value) for point in values] == [(0, 0.75), (1, 0.5), (2, 0.625)], "one an extension"
