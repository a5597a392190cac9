"""The metric against the share of the training split that trials were given: would more data help?

One point a share, where a study chose among a few; where it varied the share freely, points gather what lies near.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeper.catalog import TrialRow
from sweeper.rank.leaderboard import figure
from trials.result import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRACTION = "data.train_fraction"
"""Where a study varies it."""

MOST_POINTS = 10
"""More shares than these are gathered in as many stretches."""

APART = 1.25
"""The least factor between two labels of the axis."""


@dataclass(frozen=True)
class Point:
    """What trials on about as many examples have reached."""

    low: float
    """Smallest share of the training split among these trials."""
    high: float
    """Largest; the same where all had the same."""
    trials: tuple[tuple[float, float], ...]
    """Share and value of each, best first."""

    @property
    def best(self) -> float:
        """The best value."""
        return self.trials[0][1]


def learning_curve(trials: Iterable[TrialRow], metric: str) -> list[Point]:
    """The points by rising share, over complete trials; none where all trials had the same share."""
    seen = [
        (float(trial.params[FRACTION]), trial.value)
        for trial in trials
        if trial.state == "complete" and trial.value is not None and FRACTION in trial.params
    ]
    fractions = sorted({fraction for fraction, _ in seen})
    if len(fractions) < 2:
        return []
    groups: dict[float, list[tuple[float, float]]] = {}
    for fraction, value in seen:
        groups.setdefault(_group(fraction, fractions), []).append((fraction, value))
    sign = -1.0 if METRICS[metric] == "maximize" else 1.0
    return [
        Point(
            low=min(fraction for fraction, _ in group),
            high=max(fraction for fraction, _ in group),
            trials=tuple(sorted(group, key=lambda trial: (sign * trial[1], trial[0]))),
        )
        for _, group in sorted(groups.items())
    ]


def _group(fraction: float, fractions: Sequence[float]) -> float:
    """What sorts a share to its point: itself, or where there are too many, its stretch of the logarithm."""
    if len(fractions) <= MOST_POINTS:
        return fraction
    least, most = math.log(fractions[0]), math.log(fractions[-1])
    stretch = int((math.log(fraction) - least) / (most - least) * MOST_POINTS)
    return float(min(stretch, MOST_POINTS - 1))


def rows(points: Iterable[Point]) -> list[tuple[str, str, str]]:
    """The points as a person reads them: share, number of trials, best value."""
    return [(_share(point), str(len(point.trials)), figure(point.best)) for point in points]


def _share(point: Point) -> str:
    return f"{point.low:.3g}" if point.low == point.high else f"{point.low:.3g} to {point.high:.3g}"


def draw(points: Sequence[Point], metric: str) -> Figure:
    """The curve as a picture: all trials, and a line through the best of each point; x is logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    picture = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = picture.subplots()
    fractions, values = zip(*(trial for point in points for trial in point.trials), strict=True)
    axes.scatter(fractions, values, s=18, color="tab:gray", alpha=0.6, label="all trials")
    best = [point.trials[0] for point in points]
    axes.plot(*zip(*best, strict=True), color="tab:blue", marker="o", label="best")
    axes.set_xscale("log")
    axes.set_xticks(_ticks(points))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("share of the training split")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend()
    return picture


def _ticks(points: Sequence[Point]) -> list[float]:
    """A tick at each point where each is one share; else at 1, 2 and 5 of each power of ten in between."""
    if all(point.low == point.high for point in points):
        return [point.low for point in points]
    least, most = points[0].low, points[-1].high
    powers = range(math.floor(math.log10(least)), 1)
    inside = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [least, *[tick for tick in inside if least * APART < tick < most / APART], most]
