"""Recipes of trunks and of longer training, against what they are made from."""

from __future__ import annotations

from typing import Any

import pytest
from catalog_rows import trial_row

from sweeper.catalog import WeightsRow
from sweeper.finish.board import Board
from sweeper.finish.recipes import longer
from sweeper.finish.trunk import branched, trunk_step
from sweeper.study_file import Finish
from trials.recipe import KeptWeights, Recipe, Start
from trials.recipe.misfits import misfits

SGD = {"name": "sgd", "lr": 0.2}


def recipe(pretrained: dict[str, Any] | None = None, **train: Any) -> Recipe:
    model: dict[str, Any] = {"build": "torchvision.models:resnet18"}
    if pretrained is not None:
        model["pretrained"] = {"weights": "DEFAULT", **pretrained}
    said = {"epochs": 6, "optimizer": SGD, "ema": {"decay": 0.9}, "early_stop": {}, **train}
    return Recipe.model_validate(
        {"data": {"source": "digits"}, "model": model, "train": said, "average": {"best_n": 3, "trunk_epochs": 2}}
    )


def test_a_trunk_has_the_first_epochs_at_a_steady_rate_and_averages_nothing() -> None:
    step = trunk_step(recipe(), 7, study_seed=1)
    train = step.recipe.train
    assert (train.epochs, train.optimizer.lr) == (2, 0.2)
    assert train.schedule.model_dump() == {"name": "constant", "warmup": 0.25}, "half an epoch of two"
    assert (train.ema, train.early_stop, step.recipe.average.best_n) == (None, None, 0)
    assert branched(recipe(), Start(weights=KeptWeights(path="", sha256="", name=""), epochs=2)).train.epochs == 4
    assert step.recipe.seed != trunk_step(recipe(), 7, study_seed=2).recipe.seed


@pytest.mark.parametrize(("unfreeze_after_epochs", "in_trunk"), [(1, 1), (2, None), (3, None)])
def test_what_thaws_after_the_trunk_stays_frozen_in_it(unfreeze_after_epochs: int, in_trunk: int | None) -> None:
    frozen = {"freeze": ["body"], "unfreeze_after_epochs": unfreeze_after_epochs}
    trunk = trunk_step(recipe(frozen), 0, study_seed=1).recipe
    assert trunk.model.pretrained is not None
    assert (trunk.model.pretrained.freeze, trunk.model.pretrained.unfreeze_after_epochs) == (("body",), in_trunk)
    assert list(misfits(trunk)) == []


@pytest.mark.parametrize(("facts", "top"), [({}, 0.2), ({"lr": 0.05}, 0.05)])
def test_longer_training_falls_from_a_share_of_the_rate_that_was_trained_at(facts: dict[str, Any], top: float) -> None:
    content = recipe(lr_finder={}).model_dump(mode="json")
    board = Board(Finish(lr=0.1), 0, "validation.accuracy", [trial_row(3, recipe=content, facts=facts)], [])
    weights = WeightsRow(3, "raw", "trials/0003/weights/raw.safetensors", 0.9, {}, 6, 1, "digest")
    train = longer(board, weights, epochs=5, seed=0, lr=2.0).train
    assert train.optimizer.lr == pytest.approx(top * 0.1 * 2.0)
    assert (train.epochs, train.schedule.name, train.lr_finder, train.early_stop) == (5, "cosine", None, None)
