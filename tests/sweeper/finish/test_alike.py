"""Which weights go together, and which answers do."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.finish.alike import architecture, given
from trials.recipe import Recipe

PRETRAINED = {"build": "torchvision.models:resnet18", "pretrained": {"weights": "DEFAULT", "body_lr": 0.1}}


def recipe(data: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {"data": {"source": "digits", **(data or {})}, "model": model or {"build": "small_convnet"}, **sections}
    )


@pytest.mark.parametrize(
    ("one", "other", "weights", "answers"),
    [
        (recipe(), recipe(train={"epochs": 3, "batch_size": 7}, seed=5), True, True),
        (recipe(), recipe({"augment": ["random_crop"], "mix": "mixup"}), True, True),
        (recipe(), recipe(model={"build": "small_convnet", "dropout": 0.3, "spatial_dropout": 0.1}), True, True),
        (recipe(), recipe(model={"build": "small_convnet", "init": "orthogonal"}), True, True),
        (recipe(), recipe(model={"build": "small_convnet", "width": 8}), False, True),
        (recipe(), recipe(model={"build": "small_convnet", "norm": "group"}), False, True),
        (recipe(), recipe(model={"build": "mlp"}), False, True),
        # Normalised by the numbers of the training split, of which this is another one.
        (recipe(), recipe({"train_fraction": 0.5}), False, False),
        (recipe(), recipe({"image_size": 16}), False, False),
        (
            recipe(model=PRETRAINED),
            recipe(model={**PRETRAINED, "pretrained": {"weights": "DEFAULT", "freeze": ["body"], "body_lr": 0.3}}),
            True,
            True,
        ),
        (
            recipe(model=PRETRAINED),
            recipe(model={**PRETRAINED, "pretrained": {"weights": "DEFAULT", "normalisation": "data"}}),
            False,
            False,
        ),
        (recipe(model=PRETRAINED), recipe(model={"build": "torchvision.models:resnet18"}), False, False),
    ],
)
def test_what_goes_together(one: Recipe, other: Recipe, weights: bool, answers: bool) -> None:
    assert (architecture(one) == architecture(other)) is weights
    assert (given(one) == given(other)) is answers
