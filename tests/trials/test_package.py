"""A package predicts from raw examples exactly as the trial's own model does, in another process too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from trials.checkpoint import write_weights
from trials.data import Preprocess, Splits, load_splits
from trials.ensemble_file import recipe_of_member, write_ensemble
from trials.errors import ModelError, TrialError
from trials.model.build import build_model
from trials.package import _load_pyfunc, load_model, write_package
from trials.recipe import GreedyEnsemble, Recipe
from trials.tensor_files import packed_weights

CPU = torch.device("cpu")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def make(folder: Path, arrays: dict[str, np.ndarray], model: dict[str, Any]) -> tuple[Path, Splits, torch.nn.Module]:
    """A package of an untrained model with batch norm statistics that matter."""
    np.savez(folder / "data.npz", **arrays)
    recipe = Recipe.model_validate({"data": {"source": f"npz:{folder / 'data.npz'}"}, "model": model})
    splits = load_splits(recipe.data, CPU)
    torch.manual_seed(1)
    net = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
    net(splits.preprocess.normalise(splits.train.inputs))
    write_weights(folder / "weights.safetensors", net.state_dict())
    write_package(folder / "package", recipe, folder / "weights.safetensors", splits)
    return folder / "package", splits, net.eval()


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Splits, torch.nn.Module, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 8, 3), dtype=np.uint8)
    arrays = {"x": images, "y": np.arange(40) % 2, "classes": np.array(["cat", "dog"])}
    return *make(tmp_path, arrays, {"build": "small_convnet", "width": 4, "dropout": 0.5}), images


@pytest.fixture
def features(tmp_path: Path) -> tuple[Path, Splits, torch.nn.Module, np.ndarray]:
    table = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    return *make(tmp_path, {"x": table, "y": np.arange(40) % 3}, {"build": "mlp", "width": 8, "dropout": 0.5}), table


def expected(splits: Splits, net: torch.nn.Module, raw: np.ndarray) -> np.ndarray:
    """Probabilities by hand: scale, mean and std of the splits, the model, softmax."""
    tensor = torch.from_numpy(raw).double()
    preprocess = splits.preprocess
    mean, std = torch.tensor(preprocess.mean).double(), torch.tensor(preprocess.std).double()
    tensor = (tensor / preprocess.scale - mean) / std
    if raw.ndim == 4:
        tensor = tensor.permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = net(tensor.float()).double()
    found: np.ndarray = (logits.exp() / logits.exp().sum(1, keepdim=True)).numpy()
    return found


def test_a_loaded_model_gives_the_numbers_of_the_one_that_was_saved(
    pictures: tuple[Path, Splits, torch.nn.Module, np.ndarray],
) -> None:
    folder, splits, net, images = pictures
    model, preprocess = load_model(folder)
    assert not model.training
    assert isinstance(preprocess, Preprocess)
    assert preprocess == splits.preprocess
    with torch.no_grad():
        found = model(preprocess(images)).softmax(1).numpy()
    np.testing.assert_allclose(found, expected(splits, net, images), rtol=1e-4, atol=1e-6)


def test_loading_leaves_the_callers_random_state_alone(
    pictures: tuple[Path, Splits, torch.nn.Module, np.ndarray],
) -> None:
    before = torch.get_rng_state()
    load_model(pictures[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_mlflow_predicts_float32_probabilities_from_raw_pictures(
    pictures: tuple[Path, Splits, torch.nn.Module, np.ndarray],
) -> None:
    folder, splits, net, images = pictures
    predictor = _load_pyfunc(str(folder))
    for given in (images, list(images), pd.DataFrame({"picture": list(images)})):
        found = predictor.predict(given, params=None)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(splits, net, images), rtol=1e-4, atol=1e-6)


def test_mlflow_predicts_from_tables(features: tuple[Path, Splits, torch.nn.Module, np.ndarray]) -> None:
    folder, splits, net, table = features
    predictor = _load_pyfunc(str(folder))
    for given in (table, table.tolist(), pd.DataFrame(table)):
        np.testing.assert_allclose(predictor.predict(given), expected(splits, net, table), rtol=1e-4, atol=1e-6)


def test_plain_python_elsewhere_reads_it(
    tmp_path: Path, features: tuple[Path, Splits, torch.nn.Module, np.ndarray]
) -> None:
    folder, splits, net, table = features
    np.save(tmp_path / "table.npy", table)
    script = """
import sys, json, numpy
from trials import load_model
model, preprocess = load_model(sys.argv[1])
print(json.dumps(model(preprocess(numpy.load(sys.argv[2]))).softmax(1).tolist()))
"""
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "table.npy")]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=ONE_THREAD).stdout
    np.testing.assert_allclose(json.loads(output), expected(splits, net, table), rtol=1e-4, atol=1e-6)


def test_the_folder_says_what_it_holds(pictures: tuple[Path, Splits, torch.nn.Module, np.ndarray]) -> None:
    folder, splits, net, _ = pictures
    assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "recipe.json", "package.json"}
    description = json.loads((folder / "package.json").read_bytes())
    assert description["target"]["classes"] == ["cat", "dog"]
    assert description["preprocess"]["shape"] == [3, 9, 8]
    assert description["data_sha256"] == splits.digest
    assert description["versions"]["torch"] == torch.__version__
    assert load_file(folder / "weights.safetensors").keys() == net.state_dict().keys()


def test_what_is_missing_or_changed_is_named(
    tmp_path: Path, pictures: tuple[Path, Splits, torch.nn.Module, np.ndarray]
) -> None:
    folder = pictures[0]
    with pytest.raises(TrialError, match=r"no weights\.safetensors found, expected a folder written by"):
        load_model(tmp_path / "nowhere")
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(TrialError, match="SHA-256 differs"):
        load_model(folder)


def package_of(folder: Path, arrays: dict[str, np.ndarray], **sections: Any) -> tuple[Path, Splits, torch.nn.Module]:
    """A package of an untrained linear model on features."""
    np.savez(folder / "data.npz", **arrays)
    data = {"source": f"npz:{folder / 'data.npz'}"} | sections.pop("data", {})
    recipe = Recipe.model_validate({"data": data, "model": {"build": "linear"}, **sections})
    splits = load_splits(recipe.data, CPU)
    torch.manual_seed(1)
    net = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
    write_weights(folder / "weights.safetensors", net.state_dict())
    write_package(folder / "package", recipe, folder / "weights.safetensors", splits)
    return folder / "package", splits, net


def test_a_number_comes_out_in_its_own_unit(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    prices = (1000.0 + 300.0 * table[:, 0]).astype(np.float32)
    folder, splits, net = package_of(tmp_path, {"x": table, "y": prices}, data={"task": "regression"})
    standardised = net(splits.preprocess.normalise(torch.from_numpy(table))).detach().double().numpy()
    expected_values = standardised * splits.target.std + splits.target.mean
    model, preprocess = load_model(folder)
    with torch.no_grad():
        np.testing.assert_allclose(model(preprocess(table)).numpy(), expected_values, rtol=1e-5)
    np.testing.assert_allclose(_load_pyfunc(str(folder)).predict(table), expected_values, rtol=1e-5)


def test_probabilities_under_bce_are_the_sigmoids_scaled_to_one(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    folder, splits, net = package_of(tmp_path, {"x": table, "y": np.arange(40) % 3}, train={"loss": {"name": "bce"}})
    sigmoids = net(splits.preprocess.normalise(torch.from_numpy(table))).detach().sigmoid().numpy()
    expected_shares = sigmoids / sigmoids.sum(1, keepdims=True)
    np.testing.assert_allclose(_load_pyfunc(str(folder)).predict(table), expected_shares, rtol=1e-5)


def member(name: str, model: dict[str, Any], recipe: Recipe, **sections: Any) -> dict[str, Any]:
    """One of an ensemble, whose own file is nowhere to be found."""
    own = recipe.model_dump(mode="json", exclude={"assembly"}) | {"model": model} | sections
    return {"weights": {"path": "/nowhere", "sha256": "", "name": name}, "recipe": own}


def ensemble_package(folder: Path, shares: Sequence[float]) -> tuple[Path, Splits, Recipe, list[torch.nn.Module]]:
    """A package of three models of other losses and architectures; the recipe's own loss is bce."""
    table = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=table, y=np.arange(40) % 3)
    bce = {"loss": {"name": "bce"}}
    plain = Recipe.model_validate(
        {"data": {"source": f"npz:{folder / 'data.npz'}"}, "model": {"build": "linear"}, "train": bce}
    )
    models: list[dict[str, Any]] = [
        {"build": "linear"},
        {"build": "mlp", "width": 4},
        {"build": "mlp", "width": 8, "norm": "batch"},
    ]
    members = [member("a", models[0], plain), member("b", models[1], plain, train={}), member("c", models[2], plain)]
    assembly = {"name": "greedy_ensemble", "members": members, "most": 9}
    recipe = Recipe.model_validate(plain.model_dump(mode="json") | {"assembly": assembly})
    splits = load_splits(recipe.data, CPU)
    assert isinstance(recipe.assembly, GreedyEnsemble)
    torch.manual_seed(2)
    nets = [build_model(recipe_of_member(each).model, splits.preprocess.spec, 3) for each in recipe.assembly.members]
    chosen = [net.state_dict() for net, share in zip(nets, shares, strict=True) if share > 0]
    write_ensemble(folder / "weights.safetensors", chosen, shares)
    write_package(folder / "package", recipe, folder / "weights.safetensors", splits)
    return folder / "package", splits, recipe, [net.eval() for net in nets]


def test_an_ensemble_is_a_package_like_any_other(tmp_path: Path) -> None:
    """Its probabilities are the mean of those of its members, each read by its own loss and by no other."""
    folder, splits, _, nets = ensemble_package(tmp_path, [0.6, 0.4, 0.0])
    table = splits.train.inputs.numpy()
    with torch.no_grad():
        sigmoids, logits = (net(splits.preprocess.normalise(splits.train.inputs)) for net in nets[:2])
    shares = sigmoids.sigmoid() / sigmoids.sigmoid().sum(1, keepdim=True)
    mean = (0.6 * shares + 0.4 * logits.softmax(1)).numpy()
    model, preprocess = load_model(folder)
    with torch.no_grad():
        np.testing.assert_allclose(model(preprocess(table)).softmax(1).numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(_load_pyfunc(str(folder)).predict(table), mean, rtol=1e-5)


def test_loading_an_ensemble_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    folder, *_ = ensemble_package(tmp_path, [0.5, 0.5, 0.0])
    before = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)


GARBLED_SHARES = [
    *(
        "",
        "[",
        "null",
        "{}",
        "7",
        '"a"',
        "[]",
        "[0.5, 0.5]",
        "[0.0, 0.0, 0.0]",
        "[NaN, 0.5, 0.5]",
        "[Infinity, 1.0, 0.0]",
    ),
    *("[-1.0, 1.0, 1.0]", '["0.5", 0.5, 0.0]', "[true, 0.5, 0.5]", "[[0.5], 0.5, 0.0]", "[" * 100_000, None),
]


@pytest.mark.parametrize("shares", GARBLED_SHARES)
def test_an_ensemble_with_garbled_shares_ends_in_one_line(shares: str | None, tmp_path: Path) -> None:
    folder, splits, recipe, nets = ensemble_package(tmp_path, [0.6, 0.4, 0.0])
    metadata = None if shares is None else {"shares": shares}
    tensors = {f"members.{i}.{name}": each for i in range(2) for name, each in nets[i].state_dict().items()}
    (tmp_path / "weights.safetensors").write_bytes(packed_weights(tensors, metadata))
    write_package(folder, recipe, tmp_path / "weights.safetensors", splits)
    with pytest.raises(TrialError, match=r"another model \(shares: found .*, expected 3 numbers") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_shares_of_other_models_than_the_file_holds_end_in_one_line(tmp_path: Path) -> None:
    folder, splits, recipe, nets = ensemble_package(tmp_path, [0.6, 0.4, 0.0])
    write_ensemble(tmp_path / "weights.safetensors", [net.state_dict() for net in nets[:2]], [0.0, 0.6, 0.4])
    write_package(folder, recipe, tmp_path / "weights.safetensors", splits)
    with pytest.raises(TrialError, match="ensemble: these weights are of another model") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_what_a_model_was_made_from_need_not_be_there_to_load_it(tmp_path: Path) -> None:
    """A student that began from a trunk, and a soup, name files that stay behind."""
    table = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    weights = {"path": "../0007/weights/raw.safetensors", "sha256": "0" * 64, "name": "raw of trial 0007"}
    teacher = {"members": [{"weights": weights, "recipe": {"model": {"build": "no_more:known"}}}]}
    sections: list[dict[str, Any]] = [
        {"start": {"weights": weights, "epochs": 3}, "teacher": teacher},
        {"assembly": {"name": "uniform_soup", "ingredients": [weights] * 2, "barrier_tolerance": 0.1}},
        {"assembly": {"name": "greedy_soup", "ingredients": [weights] * 2, "barrier_tolerance": 0.1}},
    ]
    for number, made_from in enumerate(sections):
        place = tmp_path / str(number)
        place.mkdir()
        folder, splits, net = package_of(place, {"x": table, "y": np.arange(40) % 3}, **made_from)
        np.testing.assert_allclose(
            _load_pyfunc(str(folder)).predict(table), expected(splits, net, table), rtol=1e-4, atol=1e-6
        )


def test_a_model_of_ones_own_brings_its_module_along(tmp_path: Path) -> None:
    (tmp_path / "package_of_ones_own.py").write_text(OWN)
    rows = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=rows, y=np.arange(40) % 3)
    data = {"source": f"npz:{tmp_path / 'data.npz'}"}
    recipe = Recipe.model_validate({"data": data, "model": {"build": "package_of_ones_own:build"}})
    splits = load_splits(recipe.data, CPU)
    weight, bias = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(3)
    write_weights(tmp_path / "weights.safetensors", {"weight": weight, "bias": bias})
    for name, modules in (("alone", ()), ("whole", (tmp_path / "package_of_ones_own.py",))):
        write_package(tmp_path / name, recipe, tmp_path / "weights.safetensors", splits, modules)
    (tmp_path / "package_of_ones_own.py").unlink()
    with pytest.raises(ModelError, match="module package_of_ones_own cannot be imported"):
        load_model(tmp_path / "alone")
    model, preprocess = load_model(tmp_path / "whole")
    inputs = preprocess(rows)
    torch.testing.assert_close(model(inputs), 2 * inputs @ weight.T)
    assert [path.name for path in (tmp_path / "whole" / "code").iterdir()] == ["package_of_ones_own.py"]


OWN = """
from torch import nn

class Doubled(nn.Linear):
    def forward(self, inputs):
        return 2 * super().forward(inputs)

def build(num_classes):
    return Doubled(6, num_classes)
"""
