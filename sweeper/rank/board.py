"""The whole leaderboard, for people and for programs: `sweeper rank`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sweeper.catalog import Catalog
from sweeper.finish.board import Board
from sweeper.finish.verdict import cost_epochs
from sweeper.rank.latency import Latencies
from sweeper.rank.leaderboard import figure, leaderboard
from sweeper.study_file import Finish
from trials.result import METRICS

ASSEMBLED = ("soup", "ensemble")
"""Kinds of weights that were made of those of other trials."""
MB = 1e6


def rows_of(
    catalog: Catalog, name: str, latencies: Latencies, *, top: int | None = None, measure: bool = False
) -> list[dict[str, Any]]:
    """The best ``top`` weights of a study (all), best first, as `sweeper rank --json` prints them.

    ``epochs`` is after how many a trial had the weights; of what was assembled, how many were trained for it alone,
    beyond the sweep's trials.

    Args:
        catalog: knows the study.
        name: of the study.
        latencies: knows how long a model takes for one example.
        top: how many.
        measure: have that found out where it is not known.

    Raises:
        StoreError: there is no study of that name, or weights that are to be measured are gone.
    """
    study = catalog.study(name)
    trials = {trial.number: trial for trial in catalog.trials(study.id)}
    winner = study.winner
    # What finishing cost does not depend on what it was told to do.
    board = Board(Finish(), 0, study.metric, [*trials.values()], catalog.weights(study.id, of="complete"))
    rows = []
    for place, row in enumerate(leaderboard(catalog.weights(study.id), study.metric)[:top], start=1):
        trial = trials[row.trial]
        won = winner is not None and (winner["path"], winner["sha256"]) == (row.path, row.sha256)
        rows.append(
            {
                "place": place,
                "weights": row.kind,
                "trial": row.trial,
                "role": trial.role,
                "made_by": trial.params.get("move") if trial.role != "search" else None,
                "value": row.value,
                "metrics": row.metrics,
                "epochs": cost_epochs(board, row.trial) if row.kind in ASSEMBLED else row.epoch,
                "bytes": row.bytes,
                "latency_ms": latencies.measured(row, trial) if measure else latencies.known(row),
                "winner": won,
                "test": winner["test"][_test_name(study.metric)] if winner is not None and won else None,
            }
        )
    return rows


def print_board(name: str, metric: str, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The rows as a table."""
    lower = " (lower is better)" if METRICS[metric] == "minimize" else ""
    head = f"leaderboard of {name}: {metric}{lower} on the selection split"
    console.print(head, markup=False, highlight=False, soft_wrap=True)
    found = {key for row in rows for key in row["metrics"]} - {metric}
    confirmed = metric.replace("validation.", "confirm.", 1)
    # What was set aside is of interest by the study's metric; the rest of it is for programs (`--json`).
    others = [*([confirmed] if confirmed in found else []), *sorted(key for key in found if key[:8] != "confirm.")]
    timed = any(row["latency_ms"] is not None for row in rows)
    table = Table(box=None)
    for column in ("", "weights", "trial", "role", metric.removeprefix("validation."), *map(_short, others)):
        table.add_column(column, justify="left" if column in ("weights", "role") else "right")
    for column in ("epochs", "MB", *(["ms"] if timed else []), "test"):
        table.add_column(column, justify="right")
    for row in rows:
        of_metrics = [figure(row["metrics"][key]) if key in row["metrics"] else "" for key in others]
        milliseconds = "" if row["latency_ms"] is None else f"{row['latency_ms']:.2f}"
        table.add_row(
            str(row["place"]),
            row["weights"],
            f"{row['trial']:04d}",
            row["made_by"] or row["role"],
            figure(row["value"]),
            *of_metrics,
            str(row["epochs"]),
            f"{row['bytes'] / MB:.2f}",
            *([milliseconds] if timed else []),
            "" if row["test"] is None else figure(row["test"]),
        )
    console.print(table)


def _short(metric: str) -> str:
    """A metric's name in a narrow column: the split is said only where it is another one.

    >>> _short("validation.loss"), _short("confirm.loss")
    ('loss', 'confirm.loss')
    """
    return metric.removeprefix("validation.")


def _test_name(metric: str) -> str:
    return f"test.{metric.removeprefix('validation.')}"
