"""An ensemble trial: the members' own answers averaged, in one file that scores and predicts like any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trials import Recipe, TrialResult, load_model, run_trial
from trials.assemble import assemble
from trials.checkpoint import TrialFolder, write_weights
from trials.data import Splits, load_splits
from trials.ensemble_file import read_shares
from trials.errors import TrialError
from trials.fit.loss import class_scores
from trials.manifest import digest
from trials.model.build import build_model
from trials.package import write_package
from trials.score import score_weights
from trials.tensor_files import unpacked_weights

CPU = torch.device("cpu")
MODELS: list[dict[str, Any]] = [
    {"model": {"build": "linear"}, "train": {"loss": {"name": "bce"}}},
    {"model": {"build": "mlp", "width": 4, "norm": "batch"}},
    {"model": {"build": "mlp", "width": 8}, "seed": 3},
]
"""Other architectures, other losses: an ensemble asks only for the same inputs and targets."""


class Bench:
    """Data, trials that have left weights, and recipes of ensembles of them."""

    def __init__(self, folder: Path, **data: Any) -> None:
        self.folder = folder
        draws = np.random.default_rng(0)
        table = draws.normal(0, 1, (400, 5)).astype(np.float32)
        score = table[:, 0] * table[:, 1] + 0.3 * table[:, 2] + 0.3 * draws.normal(0, 1, 400)
        targets = score if data.get("task") == "regression" else np.digitize(score, [-0.4, 0.4])
        np.savez(folder / "data.npz", x=table, y=targets.astype(np.float32 if "task" in data else np.int64))
        self.data = {"source": f"npz:{folder / 'data.npz'}", "confirm": 0.5, **data}
        self.members = [self.train(number, sections) for number, sections in enumerate(MODELS)]

    def recipe(self, **sections: Any) -> Recipe:
        train = {"epochs": 3, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}} | sections.pop("train", {})
        if self.data.get("task") == "regression":
            train.pop("loss", None)
        return Recipe.model_validate({"data": self.data, "train": train, "model": {"build": "linear"}, **sections})

    def train(self, number: int, sections: dict[str, Any]) -> dict[str, Any]:
        recipe = self.recipe(**sections)
        result = run_trial(recipe, self.folder / f"{number:04d}", device="cpu")
        kept = result.weights[0]
        weights = {
            "path": f"../{number:04d}/{kept.path}",
            "sha256": kept.sha256,
            "name": f"{kept.kind} of trial {number:04d}",
        }
        return {"weights": weights, "recipe": recipe.model_dump(mode="json")}

    def ensemble(self, name: str, most: int = 3, **sections: Any) -> Recipe:
        """With the sections of the first model, whose loss is bce."""
        assembly = {"name": name, "members": self.members, "most": most}
        return self.recipe(**MODELS[0] | {"assembly": assembly} | sections)

    def assemble(self, recipe: Recipe, name: str = "0100") -> tuple[TrialResult, TrialFolder]:
        where = TrialFolder(self.folder / name)
        with where.owned():
            return assemble(recipe, where, self.splits(), CPU), where

    def splits(self) -> Splits:
        return load_splits(self.recipe().data, CPU)

    def answers(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Of each member, straight from its file: probabilities, or standardised values."""
        return [self._answers_of(member, inputs) for member in self.members]

    def _answers_of(self, member: dict[str, Any], inputs: torch.Tensor) -> torch.Tensor:
        splits, recipe = self.splits(), Recipe.model_validate_json(json.dumps(member["recipe"]))
        model = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs).eval()
        model.load_state_dict(load_file(self.folder / "0000" / member["weights"]["path"]))
        with torch.no_grad():
            outputs: torch.Tensor = model(splits.preprocess.normalise(inputs))
        if splits.target.task == "regression":
            return outputs
        return class_scores(outputs, recipe.train.loss).softmax(dim=1)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("numbers"), task="regression")


def shares_of(recipe: Recipe, where: TrialFolder) -> tuple[float, ...]:
    return read_shares(recipe, unpacked_weights(where.kept_weights("ensemble").read_bytes())[1])


@pytest.mark.parametrize("name", ["top_ensemble", "greedy_ensemble"])
def test_it_scores_what_the_mean_of_its_members_probabilities_does(classes: Bench, name: str) -> None:
    recipe = classes.ensemble(name, metric="validation.loss")
    result, where = classes.assemble(recipe)
    shares, splits = shares_of(recipe, where), classes.splits()
    assert sum(share > 0 for share in shares) > 1
    (kept,) = result.weights
    assert splits.confirm is not None
    for prefix, split in (("validation", splits.selection), ("confirm", splits.confirm)):
        mean = sum(share * each for share, each in zip(shares, classes.answers(split.inputs), strict=True))
        assert isinstance(mean, torch.Tensor)
        right = mean.gather(1, split.targets[:, None])
        assert kept.metrics[f"{prefix}.loss"] == pytest.approx(float(-right.log().mean()), rel=1e-5)
        assert kept.metrics[f"{prefix}.accuracy"] == float((mean.argmax(1) == split.targets).double().mean())
    singles = [
        float(torch.nn.functional.nll_loss(each.log(), splits.selection.targets))
        for each in classes.answers(splits.selection.inputs)
    ]
    assert kept.metrics["validation.loss"] < min(singles)


def test_the_result_says_what_the_file_is(classes: Bench) -> None:
    result, where = classes.assemble(classes.ensemble("greedy_ensemble", most=5))
    (kept,) = result.weights
    path = where.root / kept.path
    assert (kept.kind, kept.path) == ("ensemble", "weights/ensemble.safetensors")
    assert (kept.sha256, kept.bytes) == (digest(path.read_bytes()), path.stat().st_size)
    assert (result.epochs, kept.epoch) == (0, 0)
    tensors = load_file(path)
    assert result.parameters == sum(tensors[name].numel() for name in tensors if name.endswith(("weight", "bias")))
    where.finish(result)
    assert where.read_result() == result


def test_notes_and_picture_say_who_is_in_and_what_each_size_is_worth(classes: Bench) -> None:
    recipe = classes.ensemble("top_ensemble", metric="validation.loss")
    result, where = classes.assemble(recipe)
    shares = shares_of(recipe, where)
    inside, curve, gain = result.notes
    names = [member["weights"]["name"] for member in classes.members]
    assert inside.startswith(f"{sum(share > 0 for share in shares)} of 3 models are in the ensemble, with shares ")
    assert all((f"{share:.3g} {name}" in inside) == (share > 0) for share, name in zip(shares, names, strict=True))
    assert curve.startswith("validation.loss of the mean of so many answers: 1: ")
    assert curve.count(": ") == 1 + 3
    assert f"is {result.weights[0].metrics['validation.loss']:.3g}" in gain
    assert (where.pictures / "ensemble.png").read_bytes().startswith(b"\x89PNG")


def test_where_no_mean_is_better_the_file_holds_the_best_single_model(classes: Bench) -> None:
    """The same weights twice."""
    first = classes.members[1]
    assembly = {"name": "top_ensemble", "most": 3, "members": [first, first]}
    recipe = classes.ensemble("top_ensemble", metric="validation.loss", assembly=assembly)
    result, where = classes.assemble(recipe)
    assert shares_of(recipe, where) == (1.0, 0.0)
    assert result.notes[0] == (
        "no mean of several was better than raw of trial 0001 alone, so the ensemble is that one"
    )
    held = load_file(where.kept_weights("ensemble"))
    for name, tensor in load_file(where.root / first["weights"]["path"]).items():
        assert torch.equal(held[f"members.0.{name}"], tensor)


def test_scoring_the_file_finds_what_the_trial_found(classes: Bench) -> None:
    recipe = classes.ensemble("greedy_ensemble", metric="validation.loss")
    result, where = classes.assemble(recipe)
    (kept,) = result.weights
    for prefix, split in (("validation", "selection"), ("confirm", "confirm")):
        score = score_weights(recipe, where.root / kept.path, split, "cpu")  # type: ignore[arg-type]
        for name in ("loss", "accuracy", "balanced_accuracy"):
            assert score[f"{split}.{name}"] == kept.metrics[f"{prefix}.{name}"]


def test_run_trial_makes_it_and_making_it_again_gives_the_same_bytes(classes: Bench) -> None:
    recipe = classes.ensemble("greedy_ensemble")
    first = run_trial(recipe, classes.folder / "0101", device="cpu")
    again, _ = classes.assemble(recipe, "0102")
    assert first.weights == again.weights


def test_numbers_are_averaged_and_a_package_gives_them_in_their_own_unit(numbers: Bench, tmp_path: Path) -> None:
    recipe = numbers.ensemble("greedy_ensemble")
    result, where = numbers.assemble(recipe)
    splits, shares = numbers.splits(), shares_of(recipe, where)
    answers = numbers.answers(splits.selection.inputs)
    mean = torch.tensordot(torch.tensor(shares), torch.stack(answers), 1).squeeze(1)
    loss = float((mean - splits.selection.targets).square().mean())
    assert result.weights[0].metrics["validation.loss"] == pytest.approx(loss, rel=1e-5)
    assert loss <= min(float((each.squeeze(1) - splits.selection.targets).square().mean()) for each in answers)
    write_package(tmp_path / "package", recipe, where.kept_weights("ensemble"), splits)
    model, preprocess = load_model(tmp_path / "package")
    with torch.no_grad():
        found = model(preprocess(splits.selection.inputs.numpy())).squeeze(1)
    torch.testing.assert_close(found, mean * splits.target.std + splits.target.mean, rtol=1e-4, atol=1e-5)


def changed(bench: Bench, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "changed.safetensors"
    weights = bench.members[1]["weights"]
    content = bytearray((bench.folder / "0000" / weights["path"]).read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return bench.members[1] | {"weights": weights | {"path": str(path)}}


def gone(bench: Bench, tmp_path: Path) -> dict[str, Any]:
    return bench.members[1] | {"weights": bench.members[1]["weights"] | {"path": str(tmp_path / "gone.safetensors")}}


def of_other_inputs(bench: Bench, _: Path) -> dict[str, Any]:
    recipe = bench.members[1]["recipe"]
    return bench.members[1] | {"recipe": recipe | {"data": recipe["data"] | {"train_fraction": 0.5}}}


def of_other_classes(bench: Bench, tmp_path: Path) -> dict[str, Any]:
    with np.load(bench.folder / "data.npz") as arrays:
        np.savez(tmp_path / "named.npz", x=arrays["x"], y=arrays["y"], classes=np.array(["low", "middle", "high"]))
    recipe = bench.members[1]["recipe"]
    return bench.members[1] | {"recipe": recipe | {"data": recipe["data"] | {"source": f"npz:{tmp_path}/named.npz"}}}


def of_no_recipe(bench: Bench, _: Path) -> dict[str, Any]:
    return bench.members[1] | {"recipe": {"model": {"build": "mlp"}}}


def of_an_ensemble(bench: Bench, _: Path) -> dict[str, Any]:
    return bench.members[1] | {"recipe": bench.ensemble("top_ensemble").model_dump(mode="json")}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed, r"changed\.safetensors: cannot be used as raw of trial 0001 \(its digest"),
        (gone, r"gone\.safetensors: cannot be used as raw of trial 0001 \(it is gone\)"),
        (of_other_inputs, r"raw of trial 0001 takes inputs that are prepared otherwise \(another mean, std\)"),
        (of_other_classes, "raw of trial 0001 predicts other classes"),
        (of_no_recipe, r"raw of trial 0001: its recipe cannot be read \(.*data"),
        (of_an_ensemble, "raw of trial 0001: is an ensemble itself, expected a single model"),
    ],
)
def test_a_member_that_cannot_go_in_is_refused_in_one_line(
    classes: Bench, tmp_path: Path, spoil: Any, message: str
) -> None:
    members = [classes.members[0], spoil(classes, tmp_path)]
    recipe = classes.ensemble("top_ensemble", assembly={"name": "top_ensemble", "most": 2, "members": members})
    with pytest.raises(TrialError, match=message) as caught:
        classes.assemble(recipe, "0103")
    assert "\n" not in str(caught.value)
    assert not TrialFolder(classes.folder / "0103").weights.exists()


def test_models_that_give_no_numbers_make_no_ensemble(classes: Bench, tmp_path: Path) -> None:
    weights = load_file(classes.folder / "0000" / classes.members[1]["weights"]["path"])
    path = tmp_path / "nan.safetensors"
    write_weights(
        path,
        {
            name: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        },
    )
    broken = {"path": str(path), "sha256": digest(path.read_bytes()), "name": "raw of trial 0009"}
    members = [classes.members[1] | {"weights": broken}] * 2
    recipe = classes.ensemble("top_ensemble", assembly={"name": "top_ensemble", "most": 2, "members": members})
    with pytest.raises(TrialError, match="validation loss of the ensemble is nan, expected a number") as caught:
        classes.assemble(recipe, "0104")
    assert "\n" not in str(caught.value)
