"""The examples of a recipe, as its model is given them."""

from __future__ import annotations

import torch

from trials.data import Splits, load_splits
from trials.recipe import Recipe


def load_examples(recipe: Recipe, device: torch.device) -> Splits:
    """The splits of ``recipe.data``, normalised by the numbers of the pretrained weights where these bring some.

    Raises :class:`DataError`, and :class:`ModelError` when the weights cannot be found.
    """
    return load_splits(recipe.data, device)
