"""What a file of weights is worth on a split: for the leaderboard, and once at the end for the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch

from trials.data import load_splits
from trials.errors import TrialError
from trials.fit.evaluate import evaluate, wilson_interval
from trials.fit.precision import arithmetic
from trials.keep import evaluation_batch_size
from trials.package import model_with_weights
from trials.recipe import Recipe
from trials.train import on_model_device, pick_device


def score_weights(
    recipe: Recipe,
    weights_path: Path | str,
    split: Literal["selection", "test"],
    device: str | torch.device | None = None,
) -> dict[str, float]:
    """Evaluate the weights at ``weights_path`` over the whole of ``split``, as :func:`trials.run_trial` evaluates.

    Gives ``test.loss``, ``test.accuracy``, ``test.accuracy.low`` and ``.high`` (95 % Wilson interval) and
    ``test.count``, or the same with ``selection``. Raises :class:`DataError`, :class:`ModelError`, and
    :class:`TrialError` when the file is not there or is of another model.
    """
    place, path = pick_device(device), Path(weights_path)
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise TrialError(f"{path}: cannot be read as weights ({' '.join(str(error).split())})") from error
    with arithmetic(recipe.train.precision, place):
        splits = load_splits(recipe.data, place)
        spec = splits.preprocess.spec
        model = on_model_device(model_with_weights(recipe, spec, splits.target.outputs, weights), place, spec)
        examples = splits.test if split == "test" else splits.selection
        found = evaluate(
            model, examples, splits.preprocess, place, evaluation_batch_size(recipe), recipe.train.precision
        )
    low, high = wilson_interval(found.correct, found.count)
    return {
        f"{split}.loss": found.loss,
        f"{split}.accuracy": found.accuracy,
        f"{split}.accuracy.low": low,
        f"{split}.accuracy.high": high,
        f"{split}.count": float(found.count),
    }
