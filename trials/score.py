"""What a file of weights is worth on a split: for the leaderboard, and once at the end for the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError

from trials.device import on_model_device, pick_device
from trials.errors import DataError, TrialError
from trials.examples import load_examples
from trials.fit.evaluate import evaluate
from trials.fit.precision import arithmetic
from trials.package import model_of_file
from trials.recipe import Recipe
from trials.tensor_files import unpacked_weights


def score_weights(
    recipe: Recipe,
    weights_path: Path | str,
    split: Literal["selection", "confirm", "test"],
    device: str | torch.device | None = None,
) -> dict[str, float]:
    """Evaluate the weights at ``weights_path`` over the whole of ``split``, as :func:`trials.run_trial` evaluates.

    Gives ``test.loss`` and the task's other metrics, ``.low`` and ``.high`` of those that have a 95 % interval, and
    ``test.count``; or the same with ``selection`` or ``confirm``. Raises :class:`DataError`, also where the recipe sets
    nothing aside to confirm on, :class:`ModelError`, and :class:`TrialError` when the file is not there or is of
    another model.
    """
    place, path = pick_device(device), Path(weights_path)
    try:
        weights, metadata = unpacked_weights(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise TrialError(f"{path}: cannot be read as weights ({' '.join(str(error).split())})") from error
    with arithmetic(recipe.train.precision, place):
        splits = load_examples(recipe, place)
        spec = splits.preprocess.spec
        model = model_of_file(recipe, spec, splits.target, weights, metadata)
        examples = {"selection": splits.selection, "confirm": splits.confirm, "test": splits.test}[split]
        if examples is None:
            raise DataError(f"{recipe.data.source}: no examples are set aside; expected data.confirm above 0")
        found = evaluate(on_model_device(model, place, recipe, spec), examples, splits, recipe, place)
    scores = {f"{split}.{name}": value for name, value in found.metrics.items()}
    for name, (low, high) in found.intervals.items():
        scores |= {f"{split}.{name}.low": low, f"{split}.{name}.high": high}
    return {**scores, f"{split}.count": float(found.count)}
