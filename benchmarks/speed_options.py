"""What each speed option of a recipe is worth: `run_trial` with it changed beside `run_trial` as it comes.

The same recipe and the same examples; turns in another order each round; a ratio compares neighbours of one round. The
first epoch is left out of the rate: it warms up, and it is where `compile` compiles.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.loops import Timeline
from benchmarks.results import table
from trials.recipe import Recipe

AS_IT_COMES = "as it comes"
OPTIONS: dict[str, dict[str, Any]] = {
    AS_IT_COMES: {},
    "train.channels_last: false": {"train": {"channels_last": False}},
    "train.compile: true": {"train": {"compile": True}},
    "train.precision: bf16": {"train": {"precision": "bf16"}},
}
GPU_OPTIONS: dict[str, dict[str, Any]] = {
    "train.precision: tf32": {"train": {"precision": "tf32"}},
    "train.precision: fp16": {"train": {"precision": "fp16"}},
    "data.resident: host": {"data": {"resident": "host"}},
}

Trial = Callable[[Recipe, torch.device, Path], Timeline]


def changed(recipe: Recipe, option: dict[str, Any]) -> Recipe:
    """The recipe with the keys of ``option``, by section."""
    content = recipe.model_dump()
    for section, values in option.items():
        content[section] |= values
    return Recipe.model_validate(content)


def compare(
    recipe: Recipe, device: torch.device, rounds: int, trial: Trial, rate: Callable[[Timeline], float]
) -> dict[str, list[tuple[float, float, float]]]:
    """For each option, of each round: examples a second, seconds of the first epoch, accuracy at the end."""
    options = OPTIONS | (GPU_OPTIONS if device.type == "cuda" else {})
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in options}
    names = list(options)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                timeline = trial(changed(recipe, options[name]), device, Path(folder))
            found[name].append((rate(timeline), timeline.seconds[0] - started, timeline.accuracies[-1]))
        print(", ".join(f"{name} {values[-1][0]:.0f}/s" for name, values in found.items()), flush=True)
    return found


def report_of(found: dict[str, list[tuple[float, float, float]]], what: str) -> str:
    """The medians as a table, beside those of the recipe as it comes."""
    plain = [rate for rate, _, _ in found[AS_IT_COMES]]
    rows = []
    for name, values in found.items():
        rates, first_epochs, accuracies = zip(*values, strict=True)
        ratio = statistics.median(mine / theirs for mine, theirs in zip(rates, plain, strict=True))
        rows.append(
            (
                name,
                f"{statistics.median(rates):.0f}",
                f"{ratio:.2f}",
                f"{first_epochs[0]:.1f}",
                f"{accuracies[-1]:.3f}",
            )
        )
    header = ("option", "examples/s (median)", "of as it comes", "first epoch of the first round, s", "accuracy")
    return "\n".join([what + "\n", table(header, rows)])
