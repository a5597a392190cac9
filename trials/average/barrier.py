"""Whether weights may be averaged: the loss along the straight line between two of them must not rise.

Weights in one basin, as those that share a trunk, have no barrier between them, and their mean is sound; those of two
basins are far worse half way than at either end (arXiv:1912.05671).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trials.average.filling import Parts, parts_of
from trials.average.stored import Numbers, StoredWeights, Wide, combined, opened_alike
from trials.check.pictures import new_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARRIERS = "barriers.png"
FRACTIONS = (0.25, 0.5, 0.75)
"""Of the way from one to the other: where the loss is measured, besides the ends."""

Matrix = NDArray[np.float64]

_WHITE_FROM = 0.6
"""Share of the colour scale from which a number is white."""


class Refusal(NamedTuple):
    """An ingredient that is kept apart, and from which one, by their indices."""

    refused: int
    apart_from: int
    """The one accepted with which it has the highest barrier."""
    barrier: float


def barrier(losses: Sequence[float], fractions: Sequence[float]) -> float:
    """By how much the loss rises above the straight line between its ends, at most, as a share of their mean.

    ``losses`` are those at ``fractions`` of the way, the first 0 and the last 1. At least 0; infinite where a loss is
    not finite. Source: arXiv:1912.05671, of which the share is ours.

    >>> barrier([1.0, 4.0, 3.0], [0.0, 0.5, 1.0])
    1.0
    """
    if fractions[0] != 0.0 or fractions[-1] != 1.0:
        raise ValueError(f"fractions must begin with 0 and end with 1, got {list(fractions)}")
    if not all(map(math.isfinite, losses)):
        return math.inf
    first, last = losses[0], losses[-1]
    rise = max(
        loss - ((1.0 - fraction) * first + fraction * last) for loss, fraction in zip(losses, fractions, strict=True)
    )
    if rise <= 0.0:
        return 0.0
    mean = (first + last) / 2.0
    return rise / mean if mean > 0.0 else math.inf


def interpolated(files: Sequence[StoredWeights], fraction: float) -> Parts:
    """The weights ``(1 - fraction) * a + fraction * b`` of two files, part by part, in float64 and rounded once.

    What is not floating point (counters) is that of ``a``.
    """

    def mixed(parts: Iterator[Numbers]) -> Wide:
        total = next(parts).astype(np.float64) * (1.0 - fraction)
        total += next(parts).astype(np.float64) * fraction
        return total

    return combined(files, mixed)


def barrier_matrix(
    paths: Sequence[Path], loss_of: Callable[[StoredWeights, Parts], float], fractions: Sequence[float] = FRACTIONS
) -> Matrix:
    """The barriers between each two of K safetensors files, (K, K): symmetrical, zero on the diagonal.

    ``loss_of`` fills a model with parts of tensors like those of a file, refreshes its batch norm and measures its
    loss; it is asked once for each file, and for each pair once at each of ``fractions`` between its ends. Raises
    :class:`TrialError` unless all files have the same names, shapes and types.
    """
    with opened_alike(paths) as files:
        ends = [loss_of(file, parts_of(file)) for file in files]
        matrix = np.zeros((len(paths), len(paths)))
        for i, j in itertools.combinations(range(len(paths)), 2):
            pair = (files[i], files[j])
            between = [loss_of(files[i], interpolated(pair, fraction)) for fraction in fractions]
            matrix[i, j] = matrix[j, i] = barrier([ends[i], *between, ends[j]], [0.0, *fractions, 1.0])
    return matrix


def kept_apart(matrix: Matrix, tolerance: float) -> tuple[tuple[int, ...], tuple[Refusal, ...]]:
    """From the best down, the indices accepted, and those refused.

    One is accepted if its barrier with each one accepted before is at most ``tolerance``; the first, the best, always
    is.

    >>> kept_apart(np.array([[0.0, 0.5, 0.0], [0.5, 0.0, 0.1], [0.0, 0.1, 0.0]]), tolerance=0.05)
    ((0, 2), (Refusal(refused=1, apart_from=0, barrier=0.5),))
    """
    accepted: list[int] = []
    refusals: list[Refusal] = []
    for index in range(len(matrix)):
        furthest = max(accepted, key=lambda other: matrix[index, other], default=None)
        if furthest is None or matrix[index, furthest] <= tolerance:
            accepted.append(index)
        else:
            refusals.append(Refusal(index, furthest, float(matrix[index, furthest])))
    return tuple(accepted), tuple(refusals)


def draw_barriers(matrix: Matrix, names: Sequence[str], path: Path) -> None:
    """Write the barriers (K, K) between ``names`` as a PNG: a heat map with its numbers."""
    write_figure(barriers_figure(matrix, names), path)


def barriers_figure(matrix: Matrix, names: Sequence[str]) -> Figure:
    """The barriers as a heat map; what is infinite has the colour of the highest."""
    count, finite = len(matrix), matrix[np.isfinite(matrix)]
    highest = float(finite.max(initial=0.0)) or 1.0
    figure = new_figure(3.2 + 0.6 * count, 2.2 + 0.5 * count)
    axes = figure.add_subplot()
    picture = axes.imshow(np.minimum(matrix, highest), cmap="Blues", vmin=0.0, vmax=highest, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        color = "white" if value > _WHITE_FROM * highest else "black"
        axes.text(column, row, _in_few_digits(value), ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(count), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set_title("Rise of the loss on the way from one to the other", fontsize=9)
    scale = figure.colorbar(picture)
    scale.set_label("as a share of the mean loss at the ends", fontsize=8)
    scale.ax.tick_params(labelsize=8)
    return figure


def _in_few_digits(value: float) -> str:
    """
    >>> [_in_few_digits(value) for value in (0.0, 0.0004, 0.0123, 1.25, 123.4, math.inf)]
    ['0', '<0.001', '0.012', '1.2', '123', 'inf']
    """
    if 0.0 < value < 0.001:
        return "<0.001"
    return f"{value:.0f}" if 100.0 <= value < math.inf else f"{value:.2g}"
