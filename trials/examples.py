"""The examples of a recipe, as its model is given them."""

from __future__ import annotations

from dataclasses import replace

import torch

from trials.data import Splits, load_splits
from trials.model.pretrained import trained_preprocess
from trials.recipe import Recipe


def load_examples(recipe: Recipe, device: torch.device) -> Splits:
    """The splits of ``recipe.data``, normalised by the numbers of the pretrained weights where these bring some.

    Raises :class:`DataError`, and :class:`ModelError` when the weights cannot be found, or are for other examples.
    """
    splits = load_splits(recipe.data, device)
    return replace(splits, preprocess=trained_preprocess(splits.preprocess, recipe.model))
