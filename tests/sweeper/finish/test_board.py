"""What a board knows of the trials that a study has made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from catalog_rows import trial_row

from sweeper.finish.board import Board, Step
from sweeper.study_file import Finish
from trials.recipe import Recipe

RECIPE = Recipe.model_validate({"seed": 5, "data": {"source": "digits"}, "model": {"build": "linear"}})


def stored(recipe: Recipe = RECIPE, **train: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(recipe.model_dump_json())
    content["train"] |= train
    return content


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """As it was written before these keys were known, and in another order."""
    return {key: value for key, value in reversed(content.items()) if key not in keys}


@pytest.mark.parametrize(
    ("content", "is_found"),
    [
        (stored(), True),
        (stored(micro_batch=8), True),
        (without(stored(), "assembly", "teacher"), True),
        (stored() | {"train": without(stored()["train"], "lr_finder", "pictures")}, True),
        (stored() | {"seed": 6}, False),
        (stored(epochs=RECIPE.train.epochs + 1), False),
    ],
)
def test_a_step_is_the_trial_of_its_recipe_whatever_keys_that_was_written_with(
    content: dict[str, Any], is_found: bool
) -> None:
    trial = trial_row(100_000, role="move", recipe=content)
    board = Board(Finish(), 0, "validation.accuracy", [trial_row(recipe=stored()), trial], [])
    assert board.find(Step("move", {}, RECIPE)) == (trial if is_found else None)


def test_a_step_that_says_1_is_the_trial_that_says_1_point_0() -> None:
    """`model_copy` reads nothing."""
    optimizer = RECIPE.train.optimizer.model_copy(update={"lr": 1})
    recipe = RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"optimizer": optimizer})})
    trial = trial_row(100_000, role="move", recipe=json.loads(Recipe.model_validate(stored(recipe)).model_dump_json()))
    assert '"lr": 1.0' in json.dumps(trial.recipe)
    board = Board(Finish(), 0, "validation.accuracy", [trial], [])
    assert board.find(Step("move", {}, recipe)) == trial
