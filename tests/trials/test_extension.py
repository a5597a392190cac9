"""A finished trial is extended: its curve goes on where it ended, as if it had never stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trials import EpochReport, Recipe, TrialResult, run_trial
from trials.checkpoint import TrialFolder
from trials.data import load_splits
from trials.errors import TrialError
from trials.fit.evaluate import evaluate
from trials.fit.schedule import extension_factor
from trials.fit.step import steps_per_epoch
from trials.model.build import build_model
from trials.recipe import Extension

CPU = torch.device("cpu")
Curve = dict[int, dict[str, float]]


def recipe_of(epochs: int, average: dict[str, Any] | None = None, **train: Any) -> Recipe:
    """A small trial in which much is random: order, crops, mixup and dropout."""
    return Recipe.model_validate(
        {
            "seed": 5,
            "data": {"source": "digits", "validation": 0.2, "augment": ["random_crop"], "mix": "mixup"},
            "model": {"build": "mlp", "width": 8, "depth": 1, "dropout": 0.2},
            "train": {"epochs": epochs, "batch_size": 256, "optimizer": {"name": "sgd", "lr": 0.1}, **train},
            "average": average or {},
        }
    )


def extended(recipe: Recipe, *epochs: int, after: int | None = None, **section: Any) -> Recipe:
    """The recipe with an extension by each number of ``epochs``, the first after ``after``."""
    for added in epochs:
        extension = Extension(after_epochs=after or recipe.epochs, epochs=added, **section)
        recipe, after = recipe.model_copy(update={"extensions": (*recipe.extensions, extension)}), None
    return recipe


def run(recipe: Recipe, folder: Path, die_at: int | None = None) -> tuple[Curve, TrialResult]:
    """What was told of each epoch; an epoch told again says the same."""
    curve: Curve = {}

    def hear(report: EpochReport) -> bool:
        assert curve.setdefault(report.epoch, report.metrics) == report.metrics
        assert report.epochs == recipe.epochs
        if report.epoch == die_at:
            raise KeyboardInterrupt
        return True

    return curve, run_trial(recipe, folder, hear, CPU)


def digests(folder: Path, result: TrialResult) -> dict[str, str]:
    """The kept weights, by kind, as they lie on the disk."""
    found = {kept.kind: hashlib.sha256((folder / kept.path).read_bytes()).hexdigest() for kept in result.weights}
    assert found == {kept.kind: kept.sha256 for kept in result.weights}
    return dict(found)


def timeless(result: TrialResult) -> TrialResult:
    weights = [kept.model_copy(update={"path": kept.kind}) for kept in result.weights]
    return result.model_copy(update={"seconds": 0.0, "weights": tuple(weights)})


SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
ADAMW = {"name": "adamw", "lr": 0.01}
KINDS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": SGD},
    "adamw": {"optimizer": ADAMW},
    "ema": {"optimizer": SGD, "ema": {"decay": 0.9}},
    "best_n": {"optimizer": ADAMW, "average": {"best_n": 2}},
    "all": {"optimizer": ADAMW, "ema": {"decay": 0.9}, "average": {"best_n": 3}},
}


@pytest.mark.parametrize("added", [(3,), (1, 2)], ids=["once", "twice"])
@pytest.mark.parametrize("kind", KINDS)
def test_extended_at_the_full_rate_it_is_the_trial_that_was_longer_from_the_start(
    kind: str, added: tuple[int, ...], tmp_path: Path
) -> None:
    """The closed form of "the curve goes on where it ended": momentum, moments, averages and draws all go on."""
    short, long = recipe_of(2, **KINDS[kind]), recipe_of(5, **KINDS[kind])
    curve, first = run(short, tmp_path / "extended")
    assert first.epochs == 2
    for count in range(1, len(added) + 1):
        more, result = run(extended(short, *added[:count], schedule="constant", lr=1.0), tmp_path / "extended")
        assert min(more) == max(curve), "the newest epoch is told again: the extension begins nowhere else"
        curve |= more
    expected_curve, expected = run(long, tmp_path / "long")
    assert curve == expected_curve
    assert digests(tmp_path / "extended", result) == digests(tmp_path / "long", expected)
    assert timeless(result) == timeless(expected)


EVERYTHING = {
    "optimizer": SGD,
    "schedule": {"name": "one_cycle"},
    "ema": {"decay": 0.9},
    "swa": {"start": 0.5, "lr": 0.2},
    "average": {"best_n": 2},
}


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_killed_anywhere_in_an_extension_it_ends_the_same_and_so_does_the_whole_recipe_anew(
    schedule: str, tmp_path: Path
) -> None:
    recipe = recipe_of(2, **EVERYTHING)
    longer = extended(recipe, 3, schedule=schedule, lr=0.5)
    before, _ = run(recipe, tmp_path / "whole")
    curve, expected = run(longer, tmp_path / "whole")
    assert {kept.kind for kept in expected.weights} >= {"raw", "ema", "swa"}
    for epoch in range(2, 6):
        folder = tmp_path / str(epoch)
        run(recipe, folder)
        with pytest.raises(KeyboardInterrupt):
            run(longer, folder, die_at=epoch)
        rest, result = run(longer, folder)
        assert rest == {number: metrics for number, metrics in curve.items() if number >= epoch}
        assert digests(folder, result) == digests(tmp_path / "whole", expected)
    anew, result = run(longer, tmp_path / "anew")
    assert anew == before | curve
    assert timeless(result) == timeless(expected)


@pytest.mark.parametrize(("schedule", "lr"), [("cosine", 0.1), ("constant", 0.25)])
def test_the_learning_rate_of_an_extension_is_a_share_of_the_top_one(schedule: str, lr: float, tmp_path: Path) -> None:
    recipe = extended(recipe_of(2, schedule={"name": "one_cycle"}), 3, schedule=schedule, lr=lr)
    curve, _ = run(recipe, tmp_path)
    steps = steps_per_epoch(len(load_splits(recipe.data, CPU).train), recipe.train)
    assert steps == 5
    for number in (1, 2, 3):  # an epoch tells the rate of its last step
        share = extension_factor(recipe.extensions[0], number * steps - 1, 3 * steps)
        assert curve[2 + number]["train.lr"] == 0.1 * share
    rates = [curve[epoch]["train.lr"] for epoch in (3, 4, 5)]
    assert all(rate <= 0.1 * lr for rate in rates)
    assert rates == sorted(rates, reverse=True)


def test_an_extension_begins_with_the_weights_as_they_were(tmp_path: Path) -> None:
    """At a rate that moves nothing its training loss is that of the weights with which the trial had ended."""
    content = recipe_of(2).model_dump(mode="json")
    content["data"] |= {"augment": [], "mix": "none"}
    content["model"]["dropout"] = 0.0
    recipe = Recipe.model_validate(content)
    _, first = run(recipe, tmp_path)
    curve, second = run(extended(recipe, 1, lr=1e-30), tmp_path)
    splits = load_splits(recipe.data, CPU)
    model = build_model(recipe.model, splits.preprocess.spec, splits.target.outputs)
    model.load_state_dict(load_file(tmp_path / first.weights[0].path))
    assert curve[3]["train.loss"] == pytest.approx(evaluate(model, splits.train, splits, recipe, CPU).loss, rel=1e-5)
    assert curve[3]["train.loss"] != pytest.approx(curve[2]["train.loss"], rel=1e-3)
    assert digests(tmp_path, first) == digests(tmp_path, second)


def test_the_weights_of_before_are_left_until_others_are_known(tmp_path: Path) -> None:
    recipe = recipe_of(1, ema={"decay": 0.9})
    _, first = run(recipe, tmp_path)
    before = digests(tmp_path, first)
    _, second = run(extended(recipe, 1), tmp_path)
    assert {kept.path for kept in second.weights} == {f"weights/{kind}-extended-1.safetensors" for kind in before}
    assert digests(tmp_path, first) == before
    _, third = run(extended(recipe, 1, 1), tmp_path)
    assert {kept.path for kept in third.weights} == {f"weights/{kind}-extended-2.safetensors" for kind in before}
    assert [kept.epoch for kept in third.weights] == [3, 3]


def test_a_trial_that_stopped_early_goes_on_from_there_with_fresh_patience(tmp_path: Path) -> None:
    """Where nothing is ever good enough to count, patience alone decides when it ends: twice after one more epoch."""
    recipe = recipe_of(9, early_stop={"patience_epochs": 1, "min_delta": 1000.0})
    curve, first = run(recipe, tmp_path)
    assert (first.epochs, list(curve), first.weights[0].epoch) == (2, [1, 2], 1)
    more, second = run(extended(recipe, 5, after=first.epochs), tmp_path)
    assert (second.epochs, list(more), second.weights[0].epoch) == (4, [2, 3, 4], 1)
    assert second.notes[0].startswith("stopped early after epoch 4 of 7: ")
    assert second.weights[0].path != first.weights[0].path
    assert digests(tmp_path, second) == digests(tmp_path, first), "the best epoch still is the first"


def failing(at: int) -> Callable[[EpochReport], bool]:
    def report(found: EpochReport) -> bool:
        if found.epoch == at:
            raise OSError("disk full")
        return True

    return report


def test_without_its_checkpoint_a_trial_is_not_extended_and_stays_as_it_is(tmp_path: Path) -> None:
    recipe = recipe_of(1)
    _, first = run(recipe, tmp_path)
    TrialFolder(tmp_path).remove_resume_point()
    with pytest.raises(TrialError, match="cannot be extended: expected the checkpoint of epoch 1, found none; it was"):
        run(extended(recipe, 1), tmp_path)
    assert run(recipe, tmp_path) == ({}, first)


def test_an_extension_that_failed_gives_way_to_another_unless_it_trained(tmp_path: Path) -> None:
    recipe = recipe_of(1)
    run(recipe, tmp_path)
    with pytest.raises(OSError, match="disk full"):
        run_trial(extended(recipe, 4), tmp_path, failing(at=1), CPU)
    second = extended(recipe, 2)
    with pytest.raises(OSError, match="disk full"):
        run_trial(second, tmp_path, failing(at=2), CPU)
    with pytest.raises(
        TrialError, match="expected the checkpoint of epoch 1, found 2; it was removed, or an extension"
    ):
        run(extended(recipe, 1), tmp_path)
    curve, result = run(second, tmp_path)
    assert (list(curve), result.epochs) == ([2, 3], 3)
