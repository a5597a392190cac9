from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweeper.catalog import Catalog
from sweeper.errors import StoreError, StudyError
from sweeper.export.forms import FORMS
from sweeper.publish import publish_winner
from sweeper.pull import CHECKED_EXAMPLES, pull
from sweeper.rank.leaderboard import rank
from sweeper.study_folder import StudyFolder
from trials import Recipe, load_model, run_trial, score
from trials.data import load_splits
from trials.errors import ModelError


def ask_here(form: str, folder: Path, given: Any, _import_paths: Sequence[str]) -> np.ndarray:
    """What the fresh process does, without its start."""
    answers: np.ndarray = FORMS[form].ask(folder, given)
    return answers


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Catalog, StudyFolder]]:
    """A study with a winner, and a student that is not as good; both really trained."""
    home = tmp_path_factory.mktemp("home")
    folder = StudyFolder(home, "small")
    catalog = Catalog(f"sqlite:///{home / 'a.db'}")
    study = catalog.add_study("small", digest="d", text="", metric="validation.accuracy", trials_asked=1)
    for number, epochs in ((0, 3), (100_000, 1)):
        recipe = Recipe.model_validate(
            {
                "data": {"source": "digits"},
                "model": {"build": "mlp", "width": 16, "depth": 1},
                "train": {"epochs": epochs, "optimizer": {"name": "adam", "lr": 0.01}},
            }
        )
        result = run_trial(recipe, folder.trial(number), device="cpu")
        role: dict[str, Any] = {"role": "move", "params": {"move": "student"}} if number else {"params": {}}
        trial = catalog.add_trial(study.id, number, recipe=json.loads(recipe.model_dump_json()), **role)
        kept = [(file, folder.named(number, file.path), file.metrics["validation.accuracy"]) for file in result.weights]
        catalog.end_trial(trial.id, "complete", value=kept[0][2], weights=kept)
    best = rank(catalog.weights(study.id), study.metric)[0]
    publish_winner(catalog, study, best, folder, file_folder=folder.root)
    yield catalog, folder
    catalog.close()


def test_the_winner_comes_as_it_was_packed_and_a_fresh_process_has_asked_it(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path
) -> None:
    catalog, folder = finished
    said: list[str] = []
    pulled = pull(catalog, "small", folder, tmp_path / "best", say=said.append)
    assert pulled.record == catalog.study("small").winner
    assert (pulled.title, pulled.checked, pulled.unchecked_because) == ("the winner", CHECKED_EXAMPLES, None)
    assert said[-1].startswith("loading it in a fresh process")
    packed = folder.package(1)
    assert {path.name: path.read_bytes() for path in packed.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_others_come_with_a_card_that_says_so_and_without_a_look_at_the_test_split(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = finished
    monkeypatch.setattr(score, "score_weights", lambda *a, **k: pytest.fail("looked at a split"))
    pulled = pull(catalog, "small", folder, tmp_path / "student", what="student", answers=ask_here)
    (row,) = [row for row in catalog.weights(catalog.study("small").id) if row.trial == 100_000]
    assert (pulled.title, pulled.record["sha256"]) == ("the best student, which is not the winner", row.sha256)
    model, preprocess = load_model(tmp_path / "student")
    splits = load_splits(Recipe.model_validate({"data": {"source": "digits"}, "model": {"build": "linear"}}).data, CPU)
    raw = splits.selection.inputs.squeeze(1).numpy()
    hits = (model(preprocess(raw)).argmax(dim=1) == splits.selection.targets).float().mean().item()
    assert hits == pytest.approx(row.value)

    card = (tmp_path / "student" / "README.md").read_text()
    winner = catalog.study("small").winner
    assert winner is not None
    best = winner["selection"]["validation.accuracy"]
    assert card.startswith("# small: the best student\n")
    assert f"This is not the winner of the study: that is `raw` of trial 0, validation.accuracy {best:.4f}." in card
    assert f"| selection | accuracy | {row.value:.4f} |" in card
    assert "The test split was not read for this model." in card
    assert "| test |" not in card


CPU = torch.device("cpu")


def test_where_the_best_of_a_kind_is_the_winner_it_is_pulled_with_its_test_scores(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path
) -> None:
    catalog, folder = finished
    pulled = pull(catalog, "small", folder, tmp_path / "best", what="trial:0", answers=ask_here)
    assert (pulled.title, pulled.record) == ("the winner", catalog.study("small").winner)
    assert "| test | accuracy |" in (tmp_path / "best" / "README.md").read_text()


@pytest.mark.parametrize(("form", "file"), [("onnx", "model.onnx"), ("torch-export", "model.pt2")])
def test_a_graph_answers_as_the_weights_do(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path, form: str, file: str
) -> None:
    catalog, folder = finished
    pulled = pull(catalog, "small", folder, tmp_path / "graph", form=form, answers=ask_here)
    assert pulled.checked == CHECKED_EXAMPLES
    assert {path.name for path in (tmp_path / "graph").iterdir()} == {file, "package.json", "recipe.json", "README.md"}
    model, preprocess = load_model(folder.package(1))
    raw = np.random.default_rng(0).integers(0, 17, (5, 8, 8)).astype(np.float32)
    known = model(preprocess(raw)).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(FORMS[form].ask(tmp_path / "graph", raw), known, atol=1e-6)
    card = (tmp_path / "graph" / "README.md").read_text()
    assert file in card
    assert "load_model" not in card
    assert "| test | accuracy |" in card


def test_a_wrong_export_is_found_out_and_nothing_is_left(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = finished

    def write_flipped(package: Path, out: Path, requirements: Sequence[str]) -> None:
        """A graph that was told another mean than the one of the data."""
        facts = json.loads((package / "package.json").read_text())
        (changed := package.with_name("changed")).mkdir()
        for path in package.iterdir():
            (changed / path.name).write_bytes(path.read_bytes())
        facts["preprocess"]["mean"] = [facts["preprocess"]["mean"][0] + 0.001]
        (changed / "package.json").write_text(json.dumps(facts))
        FORMS["torch-export"].write(changed, out, requirements)

    monkeypatch.setitem(FORMS, "onnx", replace(FORMS["torch-export"], write=write_flipped))
    with pytest.raises(StoreError, match=r"^onnx: answers otherwise than the weights: .*; nothing was left$"):
        pull(catalog, "small", folder, tmp_path / "out", form="onnx", answers=ask_here)
    assert list(tmp_path.iterdir()) == []


def test_what_a_fresh_process_cannot_load_is_told_in_its_words_and_nothing_is_left(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = finished

    def write_half(package: Path, out: Path, requirements: Sequence[str]) -> None:
        FORMS["safetensors"].write(package, out, requirements)
        (out / "weights.safetensors").write_bytes((package / "weights.safetensors").read_bytes()[:-4])

    monkeypatch.setitem(FORMS, "mlflow", replace(FORMS["safetensors"], write=write_half))
    # The form by which the process knows it is the one that cannot read a folder without MLmodel.
    with pytest.raises(StoreError, match=r"^mlflow: cannot be loaded in a fresh process \(.+\); nothing was left$"):
        pull(catalog, "small", folder, tmp_path / "out", form="mlflow")
    assert list(tmp_path.iterdir()) == []


def test_the_winner_can_be_had_where_its_data_is_gone(
    finished: tuple[Catalog, StudyFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, folder = finished
    recipe = folder.package(1) / "recipe.json"
    whole = recipe.read_bytes()
    recipe.write_bytes(whole.replace(b'"digits"', b'"npz:/nowhere/at/all.npz"'))
    try:
        pulled = pull(catalog, "small", folder, tmp_path / "best", answers=ask_here)
    finally:
        recipe.write_bytes(whole)
    assert pulled.checked == 0
    assert pulled.unchecked_because is not None
    assert "/nowhere/at/all.npz" in pulled.unchecked_because
    assert (tmp_path / "best" / "weights.safetensors").is_file()


def test_a_folder_in_use_is_left_alone(finished: tuple[Catalog, StudyFolder], tmp_path: Path) -> None:
    catalog, folder = finished
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "mine.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"best: exists and is not an empty folder; choose another with -o"):
        pull(catalog, "small", folder, tmp_path / "best")
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StudyError, match="is not an empty folder"):
        pull(catalog, "small", folder, tmp_path / "file")


def test_what_the_study_does_not_have_makes_no_folder(finished: tuple[Catalog, StudyFolder], tmp_path: Path) -> None:
    catalog, folder = finished
    with pytest.raises(StudyError, match="found 'soup', which the study does not have"):
        pull(catalog, "small", folder, tmp_path / "new" / "best", what="soup", answers=ask_here)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_changed_since_are_refused(finished: tuple[Catalog, StudyFolder], tmp_path: Path) -> None:
    catalog, folder = finished
    (row,) = [row for row in catalog.weights(catalog.study("small").id) if row.trial == 100_000]
    weights = folder.file(row.path)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(StoreError, match=r"safetensors: sha256 \w{12}\.\.\., expected \w{12}"):
            pull(catalog, "small", folder, tmp_path / "out", what="student", answers=ask_here)
    finally:
        weights.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_a_winner_says_where_it_stands(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'a.db'}")
    catalog.add_study("new", digest="d", text="", metric="validation.accuracy", trials_asked=1)
    with pytest.raises(StudyError, match="study 'new' has no winner yet: see its trials"):
        pull(catalog, "new", StudyFolder(tmp_path, "new"), tmp_path / "best")
    with pytest.raises(StudyError, match="it has: nothing yet"):
        pull(catalog, "new", StudyFolder(tmp_path, "new"), tmp_path / "best", what="soup")
    catalog.close()


@pytest.mark.parametrize("alone", [True, False])
def test_a_model_of_ones_own_module_loads_elsewhere_or_it_is_said_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    code = tmp_path / "mine"
    code.mkdir()
    name, layer = f"pull_model_{alone}", f"pull_layer_{alone}"
    linear = "from torch.nn import Flatten, Linear, Sequential\n"
    (code / f"{layer}.py").write_text(linear)
    (code / f"{name}.py").write_text(
        (linear if alone else f"from {layer} import Flatten, Linear, Sequential\n")
        + "def build(num_classes):\n    return Sequential(Flatten(), Linear(64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(code))
    folder, catalog = StudyFolder(tmp_path, "own"), Catalog(f"sqlite:///{tmp_path / 'a.db'}")
    study = catalog.add_study("own", digest="d", text="", metric="validation.accuracy", trials_asked=1)
    catalog.set_study(study.id, import_paths=[str(code)])
    recipe = Recipe.model_validate(
        {"data": {"source": "digits"}, "model": {"build": f"{name}:build"}, "train": {"epochs": 1}}
    )
    result = run_trial(recipe, folder.trial(0), device="cpu")
    trial = catalog.add_trial(study.id, 0, recipe=json.loads(recipe.model_dump_json()), params={})
    kept = [(file, folder.named(0, file.path), file.metrics["validation.accuracy"]) for file in result.weights]
    catalog.end_trial(trial.id, "complete", value=kept[0][2], weights=kept)
    asked: list[tuple[str, ...]] = []

    def ask_elsewhere(form: str, made: Path, given: Any, import_paths: Sequence[str]) -> np.ndarray:
        """As a process does that knows nothing of the folder of the modules."""
        asked.append(tuple(import_paths))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "path", [*import_paths, *(path for path in sys.path if path != str(code))])
            for module in (name, layer):
                patch.delitem(sys.modules, module, raising=False)
            try:
                return ask_here(form, made, given, ())
            except ModelError as error:
                raise StoreError(str(error)) from error

    with closing(catalog):
        pulled = pull(catalog, "own", folder, tmp_path / "out", what="trial:0", answers=ask_elsewhere)
    assert pulled.needs == (() if alone else (str(code),))
    assert asked == ([()] if alone else [(), (str(code),)])
    assert [path.name for path in (tmp_path / "out" / "code").iterdir()] == [f"{name}.py"]
