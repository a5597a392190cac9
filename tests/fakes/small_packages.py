"""Packages of a linear model whose answers one can work out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from small_splits import recipe_of

from trials.data import Preprocess, Split, Splits, Target
from trials.package import write_package


def linear_package(
    folder: Path, preprocess: Preprocess, target: Target, weight: Sequence[Sequence[float]], bias: Sequence[float]
) -> Path:
    """A package of ``weight`` (outputs, inputs) and ``bias`` (outputs,), whose data nobody loads."""
    nothing = Split(torch.zeros(0), torch.zeros(0))
    splits = Splits(nothing, nothing, nothing, preprocess, target, digest="")
    file = folder.with_suffix(".safetensors")
    safetensors.torch.save_file({"1.weight": torch.tensor(weight), "1.bias": torch.tensor(bias)}, file)
    write_package(folder, recipe_of(data={"task": target.task} if target.task == "regression" else None), file, splits)
    return folder


CLASSES = Target("classification", ("no", "yes"))
EYE = ((1.0, 0.0), (0.0, 1.0))
"""Two features are the scores of two classes."""
