"""The mean of the weights of the N best epochs, read one tensor at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from trials.result import METRICS


def best_epochs(values: Sequence[float], metric: str, count: int) -> tuple[int, ...]:
    """The epochs (from 1) of the ``count`` best of ``values``, in ascending order; of equals, the earlier.

    >>> best_epochs([0.1, 0.9, 0.5, 0.9], "validation.accuracy", 2)
    (2, 4)
    """
    sign = -1.0 if METRICS[metric] == "maximize" else 1.0
    ranked = sorted(range(len(values)), key=lambda index: sign * values[index])
    return tuple(sorted(index + 1 for index in ranked[:count]))


def mean_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The arithmetic mean, tensor by tensor, of safetensors files with the same names and shapes.

    Summed in float64 and rounded once. What is not floating point (counters) is taken from the last file. Memory: one
    set of weights and one tensor, however many files there are.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safetensors.safe_open(path, framework="pt")) for path in paths]
        mean: dict[str, Tensor] = {}
        for name in files[0].keys():  # noqa: SIM118 (a safetensors file is not a dict)
            last: Tensor = files[-1].get_tensor(name)
            if last.is_floating_point():
                total = torch.zeros(last.shape, dtype=torch.float64)
                for file in files:
                    total += file.get_tensor(name)
                last = (total / len(files)).to(last.dtype)
            mean[name] = last
    return mean
