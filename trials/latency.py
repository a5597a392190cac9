"""How long a model takes for one example."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from trials.data import InputSpec
from trials.examples import load_examples
from trials.package import model_of_file
from trials.recipe import Recipe
from trials.tensor_files import unpacked_weights

WARM_UPS = 3
RUNS = 20


def latency_of_weights(recipe: Recipe, weights_path: Path) -> float:
    """Seconds that the weights at ``weights_path``, of a trial of ``recipe``, take on the CPU for one example.

    Raises :class:`TrialError` when the file is of another model, :class:`DataError` when the data cannot be had.
    """
    splits = load_examples(recipe, torch.device("cpu"))
    tensors, metadata = unpacked_weights(weights_path.read_bytes())
    model = model_of_file(recipe, splits.preprocess.spec, splits.target, tensors, metadata)
    return latency_seconds(model, splits.preprocess.spec)


def latency_seconds(model: nn.Module, spec: InputSpec, clock: Callable[[], float] = time.perf_counter) -> float:
    """The median time of ``RUNS`` forward passes of one example, after ``WARM_UPS`` that do not count."""
    example = spec.example(1)
    if spec.kind == "text":
        example += 1  # words throughout: padding is left out of the reading
    seconds = []
    with torch.inference_mode():
        for _ in range(WARM_UPS):
            model(example)
        for _ in range(RUNS):
            began = clock()
            model(example)
            seconds.append(clock() - began)
    return statistics.median(seconds)
