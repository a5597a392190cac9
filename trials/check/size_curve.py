"""What an ensemble is worth by its size: where more models stop helping."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trials.disk import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_size_curve(values: Sequence[float], chosen: int, metric: str, path: Path) -> None:
    """Write :func:`size_curve_figure` as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(size_curve_figure(values, chosen, metric)).print_png(picture)  # type: ignore[no-untyped-call]
    write_whole(path, picture.getvalue())


def size_curve_figure(values: Sequence[float], chosen: int, metric: str) -> Figure:
    """What the means of 1, 2, ... answers are worth on ``metric``, the size ``chosen`` marked.

    The first value, of the best single model, is a dashed line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="answers in the mean", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.plot(range(1, len(values) + 1), values, marker=".", label="ensemble")
    axes.axhline(values[0], color="0.5", linestyle="--", linewidth=1, label="best single model")
    axes.plot([chosen], [values[chosen - 1]], "o", color="tab:red", label=f"chosen: {chosen}")
    axes.legend()
    return figure
