"""The trivial objective that all contestants of `benchmarks.orchestration` share, and its clock.

Each call appends its start and its end to the file that ``ORCHESTRATION_CLOCK`` names, from whichever process it runs
in: so every contestant is measured by the same clock, on the same events. Loads no torch, so that nobody pays for it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from trials.recipe import Mlp, Recipe, Sgd
from trials.result import EpochReport, TrialResult, WeightsFile

WIDTHS = (16, 32, 64)
LR = (1e-4, 1e-1)
MOMENTUM = (0.0, 0.99)
STUDY = f"""\
study: orchestration
data: {{source: digits}}
model:
  build: mlp
  width: {{choice: {list(WIDTHS)}}}
train:
  epochs: 1
  optimizer:
    name: sgd
    lr: {{log: [{LR[0]!r}, {LR[1]!r}]}}
    momentum: {{uniform: [{MOMENTUM[0]!r}, {MOMENTUM[1]!r}]}}
search: {{sampler: tpe, trials: TRIALS, pruner: {{name: none}}}}
workers: {{concurrent: 2}}
"""
"""The same space in sweeper's words."""


def value(lr: float, momentum: float, width: int) -> float:
    """The objective proper: a smooth hill in [0, 1], after ``ORCHESTRATION_SECONDS`` of sleep."""
    start = time.time()
    if seconds := float(os.environ.get("ORCHESTRATION_SECONDS", "0")):
        time.sleep(seconds)
    height = math.exp(-((math.log10(lr) + 2) ** 2) - (momentum - 0.9) ** 2 - (math.log2(width) - 5) ** 2)
    line = f"{start!r} {time.time()!r}\n".encode()
    # One short write in append mode is whole, even from several processes at once.
    file = os.open(os.environ["ORCHESTRATION_CLOCK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)
    return height


def trivial(
    recipe: Recipe,
    folder: Path,
    report: Callable[[EpochReport], bool],
    *,
    stop: Callable[[], bool],  # noqa: ARG001  it is over before anybody could ask
) -> TrialResult:
    """`value` in the shape of `trials.train.run_trial`: one report, one (empty) file of weights."""
    optimizer, model = recipe.train.optimizer, recipe.model
    if not isinstance(optimizer, Sgd) or not isinstance(model, Mlp):
        raise ValueError(f"the trivial objective is about sgd and mlp, found {optimizer.name} and {model.build}")
    height = value(optimizer.lr, optimizer.momentum, model.width)
    metrics = {"validation.accuracy": height, "validation.loss": 1.0 - height}
    report(EpochReport(epoch=1, epochs=1, metrics=metrics, seconds=0.0))
    weights = folder / "weights" / "raw.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.touch()
    kept = WeightsFile(kind="raw", path="weights/raw.safetensors", metrics=metrics, epoch=1, bytes=0, sha256="")
    return TrialResult(epochs=1, weights=(kept,), parameters=0, seconds=0.0, device="cpu", peak_memory_bytes=0)
