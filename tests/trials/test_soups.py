"""A soup trial: the mean of weights that share a start, none of those that do not."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trials import Recipe, TrialResult, load_model, run_trial
from trials.average.barrier import barrier
from trials.data import load_splits
from trials.errors import TrialError
from trials.fit.evaluate import evaluate
from trials.keep import refresh_from_training_split
from trials.model.build import build_model
from trials.package import write_package

CPU = torch.device("cpu")


class Bench:
    """A trunk, branches of it, and a trial of its own, all of one architecture with batch norm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        draws = np.random.default_rng(0)
        table = draws.normal(0, 1, (500, 6)).astype(np.float32)
        score = table[:, 0] * table[:, 1] + 0.3 * table[:, 2] + 0.2 * draws.normal(0, 1, 500)
        np.savez(folder / "data.npz", x=table, y=np.digitize(score, [-0.4, 0.4]).astype(np.int64))
        self.data = {"source": f"npz:{folder / 'data.npz'}", "validation": 0.4, "confirm": 0.5}
        self.trunk = self.train("trunk", epochs=6)
        start = {"weights": self.trunk, "epochs": 6}
        self.branches = [self.train(f"branch-{seed}", seed=seed, epochs=2, start=start) for seed in (1, 2, 3)]
        self.stranger = self.train("stranger", seed=9, epochs=6)

    def recipe(self, epochs: int = 1, **sections: Any) -> Recipe:
        model = {"build": "mlp", "width": 16, "norm": "batch"}
        train = {"epochs": epochs, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}}
        return Recipe.model_validate({"data": self.data, "train": train, "model": model, **sections})

    def train(self, name: str, **sections: Any) -> dict[str, Any]:
        result = run_trial(self.recipe(**sections), self.folder / name, device="cpu")
        kept = result.weights[0]
        return {"path": f"../{name}/{kept.path}", "sha256": kept.sha256, "name": name}

    def cook(
        self, kind: str, ingredients: list[dict[str, Any]], tolerance: float = 0.5, **sections: Any
    ) -> tuple[TrialResult, Recipe]:
        assembly = {"name": kind, "ingredients": ingredients, "barrier_tolerance": tolerance}
        recipe = self.recipe(assembly=assembly, **sections)
        shutil.rmtree(folder := self.folder / f"{kind}-{len(ingredients)}", ignore_errors=True)
        return run_trial(recipe, folder, device="cpu"), recipe

    def path(self, ingredient: dict[str, Any]) -> Path:
        return self.folder / ingredient["name"] / "weights/raw.safetensors"

    def score(
        self, weights: dict[str, torch.Tensor], *, as_kept: bool = False
    ) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """What weights are worth, by the plain way: all in memory, batch norm measured anew unless ``as_kept``."""
        recipe, splits = self.recipe(), load_splits(self.recipe().data, CPU)
        model = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
        model.load_state_dict(weights)
        if not as_kept:
            refresh_from_training_split(model, recipe, splits, CPU)
        return evaluate(model.eval(), splits.selection, splits, recipe, CPU).metrics, model.state_dict()

    def mean(self, ingredients: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        files = [load_file(self.path(ingredient)) for ingredient in ingredients]
        return {
            name: torch.stack([file[name].double() for file in files]).mean(0).to(first.dtype)
            if first.is_floating_point()
            else first
            for name, first in files[0].items()
        }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("soups"))


def test_a_uniform_soup_is_the_mean_with_batch_norm_measured_anew(bench: Bench) -> None:
    result, recipe = bench.cook("uniform_soup", bench.branches)
    metrics, expected = bench.score(bench.mean(bench.branches))
    found = load_file(bench.folder / "uniform_soup-3" / result.weights[0].path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(found[name], values), name
    assert result.weights[0].kind == "soup"
    assert {f"validation.{name}": value for name, value in metrics.items()}.items() <= result.weights[0].metrics.items()
    assert "confirm.accuracy" in result.weights[0].metrics
    assert result.notes[0] == "3 of 3 ingredients are in the soup: branch-1, branch-2, branch-3"
    assert result.epochs == 0

    splits = load_splits(recipe.data, CPU)
    write_package(bench.folder / "pulled", recipe, bench.folder / "uniform_soup-3" / result.weights[0].path, splits)
    model, _ = load_model(bench.folder / "pulled")
    hits = model(splits.preprocess.normalise(splits.selection.inputs)).argmax(1) == splits.selection.targets
    assert float(hits.double().mean()) == pytest.approx(result.weights[0].metrics["validation.accuracy"])


def test_a_greedy_soup_takes_what_a_brute_force_one_takes(bench: Bench) -> None:
    def worth(chosen: list[dict[str, Any]]) -> float:
        return bench.score(bench.mean(chosen))[0]["accuracy"]

    for order in itertools.permutations(bench.branches):
        chosen = [order[0]]
        for ingredient in order[1:]:
            if worth([*chosen, ingredient]) >= worth(chosen):
                chosen.append(ingredient)
        as_kept = bench.score(load_file(bench.path(order[0])), as_kept=True)[0]["accuracy"]
        result, _ = bench.cook("greedy_soup", list(order))
        assert result.weights[0].metrics["validation.accuracy"] == max(worth(chosen), as_kept)
        names = ", ".join(ingredient["name"] for ingredient in chosen)
        said = f"{len(chosen)} of 3 ingredients are in the soup: {names}"
        assert result.notes[0].startswith(
            said if worth(chosen) >= as_kept else f"the soup is {order[0]['name']} as it was kept"
        )


def test_where_measuring_batch_norm_anew_costs_more_than_averaging_gives_the_best_stays_as_it_was_kept(
    bench: Bench,
) -> None:
    """Two training examples tell nothing of the statistics of batch norm."""
    few = {"average": {"batch_norm_samples": 2}}
    result, _ = bench.cook("greedy_soup", bench.branches[:2], 1e9, **few)
    first = bench.path(bench.branches[0])
    assert (bench.folder / "greedy_soup-2" / result.weights[0].path).read_bytes() == first.read_bytes()
    as_kept = bench.score(load_file(first), as_kept=True)[0]
    assert result.weights[0].metrics["validation.accuracy"] == as_kept["accuracy"]
    said = f"the soup is branch-1 as it was kept, with a validation.accuracy of {as_kept['accuracy']:.2f}: no mean "
    assert result.notes[0].startswith(said)
    uniform, _ = bench.cook("uniform_soup", bench.branches[:2], 1e9, **few)
    assert uniform.weights[0].metrics["validation.accuracy"] < as_kept["accuracy"] - 0.1, "so much does it cost"


def test_weights_with_a_barrier_between_them_are_kept_apart_and_it_says_how_high_it_is(bench: Bench) -> None:
    result, _ = bench.cook("uniform_soup", [bench.branches[0], bench.stranger, *bench.branches[1:]], tolerance=0.2)
    assert result.notes[0] == "3 of 4 ingredients are in the soup: branch-1, branch-2, branch-3"
    ends = [load_file(bench.path(ingredient)) for ingredient in (bench.branches[0], bench.stranger)]

    def loss(fraction: float) -> float:
        between = {
            name: ((1 - fraction) * values.double() + fraction * ends[1][name].double()).to(values.dtype)
            if values.is_floating_point()
            else values
            for name, values in ends[0].items()
        }
        return bench.score(between)[0]["loss"]

    fractions = (0.0, 0.25, 0.5, 0.75, 1.0)
    height = barrier([loss(fraction) for fraction in fractions], fractions)
    assert height > 0.2
    # All 100 examples of the selection split, and of the training split, are few enough to be measured on.
    assert result.notes[1] == (
        f"stranger is kept apart from branch-1: on the way between them the loss rises by {height:.3g} of theirs, "
        "more than 0.2"
    )
    assert (bench.folder / "uniform_soup-4/pictures/barriers.png").stat().st_size > 1000


def test_nothing_is_made_where_no_two_can_be_averaged(bench: Bench) -> None:
    with pytest.raises(TrialError, match=r"no two of these weights can be averaged: stranger is kept apart"):
        bench.cook("greedy_soup", [bench.branches[0], bench.stranger], tolerance=0.2)


def test_another_architecture_is_refused_with_the_reason(bench: Bench) -> None:
    wide = bench.recipe(model={"build": "mlp", "width": 8})
    kept = run_trial(wide, bench.folder / "wide", device="cpu").weights[0]
    other = {"path": f"../wide/{kept.path}", "sha256": kept.sha256, "name": "wide"}
    with pytest.raises(TrialError, match=r"wide is of another model than this mlp, expected weights of one"):
        bench.cook("uniform_soup", [bench.branches[0], other])
