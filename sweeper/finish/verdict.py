"""Which way won, and by how much: the finalists over fresh seeds, on the confirmation split.

Nothing but the winner among the finalists is chosen on that split, so that its own gain is a little optimistic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sweeper.catalog import WeightsRow
from sweeper.finish.board import Board
from sweeper.finish.plan import finalists, replicas
from sweeper.finish.ways import AVERAGES, ENSEMBLES, SINGLE, STUDENT, UNTAUGHT, left_out, ways
from sweeper.rank.leaderboard import figure, rank
from trials.recipe import Assembly, GreedySoup, UniformSoup
from trials.result import METRICS

CONFIDENCE = 0.95
ROOM_FOR_ALL = 4
"""Finalists with which there is room for the best trial, the way that came furthest, an average and an ensemble."""


@dataclass(frozen=True)
class Interval:
    """A mean, and where the true one lies with 95 % confidence; without ends where one value tells nothing of it."""

    mean: float
    low: float | None = None
    high: float | None = None
    count: int = 1

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return figure(self.mean)
        return f"{figure(self.mean)} ({figure(self.low)} to {figure(self.high)})"


@dataclass(frozen=True)
class Finalist:
    """A way to a model, and what it is worth."""

    way: str
    worth: Interval
    """On the confirmation split."""
    gain: Interval | None
    """Over the best single trial, positive where better; paired by seed. ``None`` for that trial itself."""


@dataclass(frozen=True)
class Reached:
    """What a way led to, from what the sweep itself left."""

    way: str
    kind: str
    trial: int
    selection: float
    confirmation: float
    cost_epochs: int
    """Epochs trained for it alone, beyond the sweep's trials."""


@dataclass(frozen=True)
class Verdict:
    """What finishing came to."""

    winner: WeightsRow
    way: str
    ways: tuple[Reached, ...]
    """All that were gone, best on the selection split first."""
    finalists: tuple[Finalist, ...]
    """Best first."""
    failed: tuple[str, ...]
    """Finalists that could not be gone again from each seed."""
    teacher: Interval | None
    """What the student gained over itself without a teacher, positive where better; paired by seed. ``None`` where
    nothing was compared."""
    seeds: int
    """Fresh seeds over which the finalists were compared; 0: none."""
    left_out: tuple[str, ...]
    """Ways that led to nothing, each with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the catalog keeps it with the winner."""
        return {
            "way": self.way,
            "seeds": self.seeds,
            "failed": list(self.failed),
            "left_out": list(self.left_out),
            "ways": [asdict(reached) for reached in self.ways],
            "finalists": [asdict(finalist) for finalist in self.finalists],
            "teacher": None if self.teacher is None else asdict(self.teacher),
        }


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values with Student's t-interval (Student, Biometrika 6, 1908).

    >>> mean_interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, low=-0.4841377..., high=4.4841377..., count=3)
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count < 2:
        return Interval(mean)
    from scipy.stats import t

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def verdict(board: Board) -> Verdict | None:
    """Judge the finalists; ``None`` where no trial has left weights.

    The way with the best mean wins; the best single trial does unless the mean gain of another over it is above 0. The
    interval of that gain is told, but decides nothing: so few seeds rarely leave 0 outside of it, and the mean is the
    best guess there is. Of the winning way the weights are shipped that are best on the selection split, from whichever
    seed.
    """
    if not board.searched:
        return None
    gone = replicas(board)
    reached = [_with_worth(board, ways(board, replica)) for replica in gone]
    if SINGLE not in reached[0]:
        return None
    # What the sweep itself left was chosen for its luck; fresh seeds were not.
    fresh = [found for found in reached[1:] if SINGLE in found]
    compared = fresh or reached[:1]
    names = finalists(board)
    failed = tuple(way for way in names if not all(way in found for found in compared))
    judged = sorted(
        (_judge(board, way, compared) for way in names if way not in failed),
        key=lambda finalist: (_sign(board) * -finalist.worth.mean, finalist.way != SINGLE),
    )
    winner = next(finalist for finalist in judged if finalist.way == SINGLE)
    if judged[0].gain is not None and judged[0].gain.mean > 0:
        winner = judged[0]
    rows = rank([found[winner.way] for found in reached if winner.way in found], board.metric)
    both = [found for found in reached if STUDENT in found and UNTAUGHT in found]
    # Where the student did not reach the finals, what there is from the sweep's own seed.
    taught = [found for found in compared if found in both] or both[:1]
    teacher = mean_interval(_gains(board, STUDENT, UNTAUGHT, taught)) if taught else None
    led_to = _reached(board, reached[0])
    nothing = left_out(board, gone[0])
    return Verdict(rows[0], winner.way, led_to, tuple(judged), failed, teacher, len(fresh), nothing)


def _with_worth(board: Board, found: Mapping[str, WeightsRow]) -> dict[str, WeightsRow]:
    """Those of which it is known what they are worth: a loss that is no number is not kept."""
    return {way: row for way, row in found.items() if _confirmed(board) in row.metrics}


def _reached(board: Board, found: Mapping[str, WeightsRow]) -> tuple[Reached, ...]:
    order = [row.path for row in rank(found.values(), board.metric)]
    ways_by_place = sorted(found, key=lambda way: order.index(found[way].path))
    return tuple(
        Reached(way, row.kind, row.trial, row.value, _worth(board, row), cost_epochs(board, row.trial))
        for way in ways_by_place
        for row in [found[way]]
    )


def _judge(board: Board, way: str, compared: Sequence[Mapping[str, WeightsRow]]) -> Finalist:
    worths = [_worth(board, found[way]) for found in compared]
    gain = None if way == SINGLE else mean_interval(_gains(board, way, SINGLE, compared))
    return Finalist(way, _within_bounds(mean_interval(worths), board.metric), gain)


def _gains(board: Board, way: str, over: str, compared: Sequence[Mapping[str, WeightsRow]]) -> list[float]:
    """What one way gained over another from each seed."""
    return [_sign(board) * (_worth(board, found[way]) - _worth(board, found[over])) for found in compared]


def _within_bounds(interval: Interval, metric: str) -> Interval:
    """No accuracy is below 0 or above 1, whatever so few seeds would allow."""
    if interval.low is None or interval.high is None or not metric.endswith("accuracy"):
        return interval
    return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))


def _worth(board: Board, row: WeightsRow) -> float:
    """On the confirmation split."""
    return row.metrics[_confirmed(board)]


def _confirmed(board: Board) -> str:
    return board.metric.replace("validation.", "confirm.", 1)


def _sign(board: Board) -> float:
    return 1.0 if METRICS[board.metric] == "maximize" else -1.0


def cost_epochs(board: Board, number: int) -> int:
    """Epochs trained for the weights of a trial that is none of the search's, with those of its ingredients."""
    trial = board.by_number[number]
    if trial.role == "search" or "trial" in trial.params:
        return 0
    recipe = board.recipe(number)
    sources = [] if recipe.assembly is None else _files(recipe.assembly)
    if recipe.teacher is not None:
        sources = [member.weights.path for member in recipe.teacher.members]
    paths = {f"../../{row.path}": row.trial for row in board.weights}
    needed = {paths[path] for path in sources if path in paths}
    return int(trial.facts.get("epochs", 0)) + sum(cost_epochs(board, source) for source in sorted(needed))


def _files(assembly: Assembly) -> list[str]:
    if isinstance(assembly, UniformSoup | GreedySoup):
        return [file.path for file in assembly.ingredients]
    return [member.weights.path for member in assembly.members]


def lines(said: Mapping[str, Any], metric: str) -> list[str]:
    """What a person is told of a verdict, as `Verdict.to_dict` gives it."""
    short = metric.removeprefix("validation.")
    seeds = said["seeds"]
    over = f"over {seeds} fresh seed{'s' if seeds != 1 else ''}" if seeds else "from the sweep's own seeds"
    decided = "" if seeds > 1 else "; one value of each decided"
    told = [
        f"finalists {over}: {short} on the confirmation split, on which nothing but the winner among them was chosen, "
        f"so its own gain is a little optimistic{decided}"
    ]
    for finalist in said["finalists"]:
        worth = Interval(**finalist["worth"])
        told.append(f"  {finalist['way']}: {worth}")
    told += [f"{way} could not be made again from each seed, and does not compete" for way in said["failed"]]
    single = "the best single trial"
    gains = [(each["way"], each["gain"], single) for each in said["finalists"] if each["gain"] is not None]
    if said.get("teacher") is not None:
        gains.append((STUDENT, said["teacher"], f"the {UNTAUGHT}"))
    told += [_gain_line(way, Interval(**gain), than, short) for way, gain, than in gains]
    return [*told, *_missed_the_finals(said), *said["left_out"]]


def _missed_the_finals(said: Mapping[str, Any]) -> Iterator[str]:
    """Of averaging, and of ensembling, that none of its ways was gone again, where that is so."""
    competing = {*(finalist["way"] for finalist in said["finalists"]), *said["failed"]}
    for name, kind in (("averaging", AVERAGES), ("ensembling", ENSEMBLES)):
        gone = [way for way in said["ways"] if way["way"] in kind]  # best first
        if not gone or competing & set(kind):
            continue
        ahead = [way for way in said["ways"] if way["way"] in competing - {SINGLE}]
        against = f", against {figure(ahead[-1]['selection'])} of {ahead[-1]['way']}" if ahead else ""
        yield (
            f"{name} did not reach the finals: {gone[0]['way']} has {figure(gone[0]['selection'])} on the selection "
            f"split{against}; `finish: {{finalists: {ROOM_FOR_ALL}}}` has room for it"
        )


def _gain_line(way: str, gain: Interval, over: str, metric: str) -> str:
    paired = f", paired over {gain.count} seeds" if gain.count > 1 else ""
    if gain.low is not None and gain.low > 0:
        return f"{way} gained {gain} over {over} in {metric}{paired}"
    if gain.high is not None and gain.high < 0:
        return f"{way} lost {figure(-gain.mean)} against {over} in {metric}: {gain}{paired}"
    if gain.count == 1:
        return f"{way} differs from {over} in {metric} by an amount that one seed cannot judge: {gain}"
    return f"{way} gained nothing that {gain.count} seeds can tell over {over} in {metric}: {gain}{paired}"
