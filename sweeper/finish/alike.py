"""What trials must have in common for their weights, or their answers, to be averaged."""

from __future__ import annotations

import json
from typing import Any

from trials.recipe import Model, Recipe

VARIED = {"augment", "mix", "mix_alpha", "resident"}
"""Keys of `data` that change neither the model nor what it is given of an example."""
FIRST_WEIGHTS = {"init", "zero_init_residual"}
TRAINED_BY = {"freeze", "unfreeze_after_epochs", "body_lr"}
"""Keys of `model.pretrained` about how the weights change, not about what they are weights of."""


def architecture(recipe: Recipe) -> str:
    """What weights must have in common to be averaged: model, labels and preprocessing."""
    return json.dumps([shape(recipe.model), given(recipe)], sort_keys=True)


def given(recipe: Recipe) -> str:
    """What models must have in common for their answers to be averaged: examples, and how they are given them."""
    start = recipe.model.pretrained
    data = recipe.data.model_dump(mode="json", exclude=VARIED)
    return json.dumps([data, None if start is None else [start.weights, start.normalisation]], sort_keys=True)


def shape(model: Model) -> dict[str, Any]:
    """The model but for what acts in training only: dropout, first weights, what is frozen."""
    said = model.model_dump(mode="json")
    shape = {key: value for key, value in said.items() if not key.endswith("dropout") and key not in FIRST_WEIGHTS}
    if shape["pretrained"] is not None:
        shape["pretrained"] = {key: value for key, value in shape["pretrained"].items() if key not in TRAINED_BY}
    return shape
