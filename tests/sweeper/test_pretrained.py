"""A registered model as a start: fetched once, the same for the whole study, wherever the alias goes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console

from sweeper.catalog import Catalog
from sweeper.errors import StudyError, TrackingError
from sweeper.mlflow_client import connect
from sweeper.mlflow_model import log_model
from sweeper.pretrained import with_fetched_models
from sweeper.settings import Settings
from sweeper.space import Choice, Space
from sweeper.start import start
from sweeper.study_folder import StudyFolder
from sweeper.tracking import Tracker
from trials.checkpoint import write_weights
from trials.data import load_splits
from trials.model.weights import read_weights
from trials.package import write_package
from trials.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::ResourceWarning")]

DIGITS = {"data": {"source": "digits"}, "model": {"build": "linear"}}


def settings_at(home: Path) -> Settings:
    return Settings(home, f"sqlite:///{home / 'a.db'}", f"sqlite:///{home / 'mlflow.db'}", None)


def register(home: Path, name: str, value: float) -> str:
    """Register a linear model of digits whose weights are all ``value``, as a finished study does; its version."""
    recipe = Recipe.model_validate(DIGITS)
    splits = load_splits(recipe.data, torch.device("cpu"))
    work = home / "work" / f"{name}-{value}"
    tensors = {"1.weight": torch.full((10, 64), value), "1.bias": torch.full((10,), value)}
    write_weights(work / "weights.safetensors", tensors)
    write_package(work / "winner", recipe, work / "weights.safetensors", splits)
    catalog = Catalog(f"sqlite:///{work / 'a.db'}")
    row = catalog.add_study(name, digest="d", text="", metric="validation.accuracy", trials_asked=1)
    try:
        return log_model(Tracker(settings_at(home), catalog, row, "", {}), work / "winner", name=name, requirements=[])
    finally:
        catalog.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose MLflow has two versions of a model; `best` is the second. Not to be changed."""
    home = tmp_path_factory.mktemp("registry")
    assert [register(home, "digits", value) for value in (1.0, 2.0)] == ["1", "2"]
    return home


@pytest.fixture
def settings(registry: Path, tmp_path: Path) -> Settings:
    """A home of the test's own, with a copy of that MLflow."""
    shutil.copy(registry / "mlflow.db", tmp_path / "mlflow.db")
    return settings_at(tmp_path)


def space_of(weights: Any) -> Space:
    return Space({"model": {"build": "linear", "pretrained": {"weights": weights}}})


def places(weights: Any, settings: Settings, study: str = "next") -> Any:
    space = with_fetched_models(space_of(weights), StudyFolder(settings.home, study), settings)
    return space.sections["model"]["pretrained"]["weights"]


def values_of(place: str) -> set[float]:
    """What the weights at ``place`` hold, as a trial that starts from them reads it."""
    recipe = Recipe.model_validate({**DIGITS, "model": {"build": "linear", "pretrained": {"weights": place}}})
    return {float(value) for tensor in read_weights(recipe.model).values() for value in tensor.unique()}


def test_an_alias_and_a_version_become_folders_below_the_home(settings: Settings) -> None:
    best = places("models:/digits@best", settings)
    assert best == str(settings.home / "pretrained" / "digits-v2")
    assert values_of(best) == {2.0}
    assert sorted(path.name for path in Path(best).iterdir()) == ["package.json", "recipe.json", "weights.safetensors"]
    first = places("models:/digits/1", settings)
    assert first == str(settings.home / "pretrained" / "digits-v1")
    assert values_of(first) == {1.0}
    assert [path.name for path in (settings.home / "pretrained").glob(".*")] == []


def test_other_starts_and_the_labels_of_choices_stay(settings: Settings) -> None:
    choice = Choice((None, {"weights": "models:/digits/1"}, {"weights": "/a.pt"}), ("none", "one", "file"))
    space = Space({"model": {"build": "models:/digits/1", "pretrained": choice}})
    found = with_fetched_models(space, StudyFolder(settings.home, "next"), settings).sections["model"]
    assert found["build"] == "models:/digits/1", "only weights are looked up"
    assert found["pretrained"].labels == ("none", "one", "file")
    one = {"weights": str(settings.home / "pretrained" / "digits-v1")}
    assert found["pretrained"].options == (None, one, {"weights": "/a.pt"})


def test_a_study_goes_on_with_the_version_it_began_with(settings: Settings) -> None:
    client = connect(settings)
    client.set_registered_model_alias("digits", "best", "1")
    began = places("models:/digits@best", settings)
    client.set_registered_model_alias("digits", "best", "2")
    assert places("models:/digits@best", settings) == began
    assert places("models:/digits@best", settings, study="another") == str(settings.home / "pretrained" / "digits-v2")
    shutil.rmtree(began)  # cleaned away: fetched again, the same
    assert values_of(places("models:/digits@best", settings)) == {1.0}


def test_what_is_there_is_not_asked_for_again(settings: Settings) -> None:
    began = places("models:/digits@best", settings)
    away = Settings(settings.home, settings.database_url, "http://127.0.0.1:9", None)
    assert places("models:/digits@best", away) == began
    with pytest.raises(TrackingError, match=r"^MLflow at http://127\.0\.0\.1:9: "):
        places("models:/digits/1", away)


def test_a_damaged_copy_is_fetched_again(settings: Settings) -> None:
    began = Path(places("models:/digits@best", settings))
    (began / "weights.safetensors").write_bytes(b"damaged")
    assert values_of(places("models:/digits@best", settings)) == {2.0}
    (began / "package.json").unlink()
    assert values_of(places("models:/digits@best", settings)) == {2.0}


def test_other_weights_under_the_same_version_are_refused(settings: Settings) -> None:
    place = Path(places("models:/digits@best", settings))
    began = hashlib.sha256((place / "weights.safetensors").read_bytes()).hexdigest()
    (place / "weights.safetensors").write_bytes(b"other")
    other = hashlib.sha256(b"other").hexdigest()
    (place / "package.json").write_text(json.dumps({"weights_sha256": other}))
    with pytest.raises(StudyError) as caught:
        places("models:/digits@best", settings)
    assert str(caught.value) == (
        f"model.pretrained.weights: models:/digits@best: version 2 has weights of sha256 {other[:12]}..., but the "
        f"study began with {began[:12]}...; begin it anew under another name"
    )


@pytest.mark.parametrize("address", ["models:/digit@best", "models:/digits@bets", "models:/digits/7"])
def test_no_such_model_is_one_line_that_lists_what_there_is(address: str, settings: Settings) -> None:
    with pytest.raises(StudyError) as caught:
        places(address, settings)
    assert str(caught.value) == (
        f"model.pretrained.weights: found {address!r}, which MLflow at {settings.tracking_uri} does not have; "
        "registered there: digits (@best)"
    )
    assert StudyFolder(settings.home, "next").read("pretrained.json") is None


def test_a_model_of_somebody_else_is_one_line(settings: Settings) -> None:
    import mlflow
    from mlflow.pyfunc import PythonModel

    class Zero(PythonModel):
        def predict(self, context: Any, model_input: list[float]) -> list[float]:
            return [0.0 for _ in model_input]

    connect(settings)
    experiment = mlflow.MlflowClient().create_experiment("other", artifact_location=settings.artifacts.as_uri())
    with mlflow.start_run(experiment_id=experiment):
        mlflow.pyfunc.log_model(name="model", python_model=Zero(), registered_model_name="zero", pip_requirements=[])
    with pytest.raises(StudyError) as caught:
        places("models:/zero/1", settings)
    assert str(caught.value) == (
        "model.pretrained.weights: models:/zero/1: version 1 is no model that sweeper registered, expected one with "
        "weights.safetensors, recipe.json, package.json; give its weights as a file instead"
    )
    assert not (settings.home / "pretrained" / "zero-v1").exists()


STUDY = """\
study: next
data: {source: digits}
model: {build: linear, pretrained: {weights: "models:/digits/1"}}
train: {epochs: 1, optimizer: {name: sgd, lr: 1.0e-9}}
search: {trials: 1, pruner: {name: none}}
"""


def test_trials_of_a_study_start_from_it(settings: Settings) -> None:
    (settings.home / "study.yaml").write_text(STUDY)
    code = start(settings.home / "study.yaml", settings, Console(file=io.StringIO()), in_process=True)
    assert code == 0
    folder = StudyFolder(settings.home, "next")
    (weights,) = folder.weights(0)
    trained = safetensors.torch.load_file(weights)
    assert float(trained["1.weight"].mean()) == pytest.approx(1.0, abs=1e-5), (
        "they have hardly moved from where they began"
    )
    catalog = Catalog(settings.database_url)
    recipe = catalog.trial(catalog.study("next").id, 0).recipe
    catalog.close()
    assert recipe["model"]["pretrained"]["weights"] == str(settings.home / "pretrained" / "digits-v1")


def test_a_study_without_registered_models_asks_nobody(tmp_path: Path) -> None:
    away = Settings(tmp_path, "", "http://127.0.0.1:9", None)
    space = space_of("/a/file.pt")
    assert with_fetched_models(space, StudyFolder(tmp_path, "next"), away).sections == space.sections
    assert list(tmp_path.iterdir()) == []
