from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_packages import CLASSES, EYE, linear_package
from small_splits import numbers_target
from torch import nn

import trials
from trials import load_model
from trials.data import TablePreprocess, Target, TextPreprocess
from trials.data.preprocess import ArrayPreprocess
from trials.data.table import CategoryColumn, NumberColumn
from trials.errors import TrialError
from trials.export.graph import Graph, batch_of, facts_of
from trials.export.read import answers_of_graph
from trials.export.write import program_of, write_graph
from trials.model import text
from trials.model.ensemble import Ensemble
from trials.package import Answering

FORMS = ("onnx", "torch-export")
ODDS = np.log(3.0)
"""The score by which a class is three times as likely as one of 0."""


@pytest.mark.parametrize("form", FORMS)
def test_raw_features_become_probabilities_of_any_number_of_examples(form: str, tmp_path: Path) -> None:
    preprocess = ArrayPreprocess("features", (2,), 1.0, mean=(10.0, 1.0), std=(2.0, 1.0))
    package = linear_package(tmp_path / "package", preprocess, CLASSES, EYE, (0.0, 0.0))
    write_graph(form, package, tmp_path / "out")
    raw = np.array([[10.0 + 2 * ODDS, 1.0], [10.0, 1.0], [10.0, 1.0 + ODDS]], dtype=np.float32)
    known = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])
    for count in (1, 3):
        found = answers_of_graph(tmp_path / "out", raw[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, known[:count], atol=1e-6)
    graph = json.loads((tmp_path / "out" / "package.json").read_text())["graph"]
    assert {key: graph[key] for key in ("form", "input_name", "input_type", "input_shape", "output_name")} == {
        "form": form,
        "input_name": "rows",
        "input_type": "float32",
        "input_shape": [-1, 2],
        "output_name": "probabilities",
    }
    assert not (tmp_path / "out" / "weights.safetensors").exists()
    if form == "onnx":
        here = str(Path(trials.__file__).parent).encode()
        assert here not in (tmp_path / "out" / "model.onnx").read_bytes(), "where the code lay is nobody's business"


def test_images_are_given_channels_last_in_bytes(tmp_path: Path) -> None:
    preprocess = ArrayPreprocess("image", (2, 1, 1), 255.0, mean=(0.2, 0.0), std=(0.2, 1.0))
    package = linear_package(tmp_path / "package", preprocess, CLASSES, EYE, (0.0, 0.0))
    write_graph("torch-export", package, tmp_path / "out")
    raw = np.array([[[[51, 0]]], [[[102, 255]]]], dtype=np.uint8)  # (2, H, W, C): scores (0, 0) and (1, 1)
    np.testing.assert_allclose(answers_of_graph(tmp_path / "out", raw), np.full((2, 2), 0.5), atol=1e-6)
    raw[1, 0, 0, 1] = 0
    np.testing.assert_allclose(answers_of_graph(tmp_path / "out", raw)[1, 0], np.e / (1 + np.e), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_numbers_is_given_as_cells_and_answered_in_units_of_the_target(form: str, tmp_path: Path) -> None:
    fields = (NumberColumn("size", "double", 1e9, 1.0, missing=True), NumberColumn("age", "long", 0.0, 1.0, False))
    preprocess, target = TablePreprocess(fields), numbers_target(mean=100.0, std=10.0)
    package = linear_package(tmp_path / "package", preprocess, target, ((1.0, 2.0, 7.0),), (0.5,))
    write_graph(form, package, tmp_path / "out")
    cells = np.array([[1e9 + 1.0, 3.0], [np.nan, 3.0]])  # far from zero, where float32 has no digits left
    known = 100.0 + 10.0 * np.array([[1.0 + 6.0 + 0.5], [0.0 + 6.0 + 7.0 + 0.5]])
    np.testing.assert_allclose(answers_of_graph(tmp_path / "out", cells), known, rtol=1e-6)


def test_where_names_are_read_the_graph_takes_what_preprocessing_gives(tmp_path: Path) -> None:
    preprocess = TablePreprocess((CategoryColumn("place", "string", ("field", "town"), missing=False),))
    package = linear_package(tmp_path / "package", preprocess, CLASSES, EYE, (0.0, 0.0))
    model, preprocess_again = load_model(package)
    assert isinstance(model, Answering)
    facts = facts_of(model, preprocess_again)
    assert (facts.input_type, facts.input_shape) == ("float32", (-1, 2))
    assert facts.input_meaning.startswith("rows after preprocessing: the graph cannot read names")
    batch = batch_of(preprocess, torch.tensor([[1.0]], dtype=torch.float64))
    assert batch.tolist() == [[0.0, 1.0]]
    assert Graph(model, preprocess)(batch)[0, 1].item() == pytest.approx(np.e / (1 + np.e))


@pytest.mark.parametrize("model", ["bag", "gru", "transformer"])
def test_models_of_texts_answer_alike_in_a_graph(model: str) -> None:
    torch.manual_seed(1)
    made: nn.Module = {
        "bag": lambda: text.BagClassifier(9, 3, 8),
        "gru": lambda: text.GruClassifier(9, 3, 8, 4, 1),
        "transformer": lambda: text.TransformerClassifier(9, 6, 3, 8, 1, 2),
    }[model]()
    preprocess = TextPreprocess(6, tuple("abcdefg"))
    answering = Answering(made, Target("classification", tuple("xyz")), None).eval()
    words = preprocess(["a b c", "d", "", "a b c d e f"])
    with torch.no_grad():
        found = program_of(answering, preprocess).module()(words)
        assert torch.allclose(found, answering(words).softmax(dim=1), atol=1e-6)


def test_an_ensemble_is_one_graph_that_answers_with_the_mean_of_its_members() -> None:
    members = [nn.Linear(2, 2), nn.Linear(2, 2)]
    with torch.no_grad():
        for member, rows in zip(members, (EYE, EYE[::-1]), strict=True):
            member.weight.copy_(torch.tensor(rows))
            member.bias.zero_()
    model = Answering(Ensemble(members, (None, None), (3.0, 1.0), "classification"), CLASSES, None).eval()
    preprocess = ArrayPreprocess("features", (2,), 1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    with torch.no_grad():
        found = program_of(model, preprocess).module()(torch.tensor([[ODDS, 0.0]] * 3).float())
    # Three quarters of (0.75, 0.25) and a quarter of (0.25, 0.75).
    assert torch.allclose(found, torch.tensor([[0.625, 0.375]]).expand(3, 2), atol=1e-6)


def test_a_model_that_cannot_be_exported_says_so_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess = ArrayPreprocess("features", (2,), 1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    package = linear_package(tmp_path / "package", preprocess, CLASSES, EYE, (0.0, 0.0))

    def branches(self: Answering, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if inputs.sum() > 0 else -inputs

    monkeypatch.setattr(Answering, "forward", branches)
    with pytest.raises(
        TrialError, match=r"^torch-export: this model cannot be exported \(.*\); take it as safetensors"
    ):
        write_graph("torch-export", package, tmp_path / "out")
