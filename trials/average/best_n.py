"""The mean of the weights of the N best epochs, read a part at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from trials.average.soup import mean
from trials.average.stored import combined, in_memory, opened_alike
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
    set of weights and a part of one tensor, however many files there are.
    """
    with opened_alike(paths) as files:
        return in_memory(files[0], combined(files, mean, counters_of=-1))
