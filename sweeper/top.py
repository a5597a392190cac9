"""`sweeper top`: what runs now, read from the catalog alone, from any machine that reaches it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeper.catalog import ENDED, AtWork, Catalog, StudyRow
from sweeper.errors import StoreError
from sweeper.lease import is_held
from sweeper.rank.leaderboard import figure
from sweeper.show import state_of
from sweeper.view import clock, describe
from trials.result import METRICS

REFRESH_SECONDS = 1.0
Glanced = dict[str, Any]


def glance(catalog: Catalog, name: str | None = None) -> list[Glanced]:
    """What `sweeper top --json` prints: all studies that are run now, or the one of that name, oldest first.

    Ages are seconds by the clock of this machine.

    Raises:
        StoreError: there is no study of that name, or the database cannot be used.
    """
    studies = [catalog.study(name)] if name is not None else [row for row in catalog.studies() if is_held(row)]
    now = time.time()
    return [_study(catalog, row, now) for row in studies]


def top(
    catalog: Catalog,
    console: Console,
    name: str | None = None,
    *,
    once: bool = False,
    as_json: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Show what runs, again and again until ctrl-C; returns the exit code.

    Args:
        catalog: of all the studies.
        console: where to show it.
        name: of a study, if only one is to be shown.
        once: show it once, as plain lines.
        as_json: print it once, for programs.
        pause: waits for so many seconds.

    Raises:
        StoreError: there is no study of that name, or the database cannot be used.
    """
    seen = glance(catalog, name)
    if as_json:
        console.file.write(json.dumps(seen, indent=2) + "\n")
        return 0
    if once or not console.is_terminal:
        console.print(draw(seen))
        return 0
    try:
        with Live(draw(seen), console=console, screen=True, auto_refresh=False) as live:
            while True:
                pause(REFRESH_SECONDS)
                note = ""
                try:
                    seen = glance(catalog, name)
                except StoreError as error:
                    if not error.transient:
                        raise
                    note = f"as it was; waiting for the database ({error})"
                live.update(draw(seen, note), refresh=True)
    except KeyboardInterrupt:
        return 0


def draw(seen: Sequence[Glanced], note: str = "") -> RenderableType:
    """Studies with the trials that each runs, for people."""
    parts: list[RenderableType] = []
    for study in seen:
        parts += [Text(_head(study), style="bold"), *_trials(study)]
    if not seen:
        parts.append(Text("no study runs; all there are: sweeper list"))
    if note:
        parts.append(Text(note, style="yellow"))
    return Group(*parts)


def _study(catalog: Catalog, row: StudyRow, now: float) -> Glanced:
    held = is_held(row)
    return {
        "study": row.name,
        "state": state_of(row),
        "request": row.request if held else None,
        "metric": row.metric,
        "best": catalog.best_value(row.id, METRICS[row.metric]),
        "trials": dict(catalog.count_trials(row.id, "search")),
        "trials_asked": row.trials_asked,
        "host": row.owner_host if held else None,
        "process": row.owner_pid if held else None,
        "job": row.job,
        "since_seconds": _age(now, row.owner_since) if held else None,
        "heard_seconds": _age(now, row.heartbeat_at) if held else None,
        "running": [_trial(trial, row.metric, now) for trial in catalog.at_work(row.id)] if held else [],
    }


def _trial(trial: AtWork, metric: str, now: float) -> dict[str, Any]:
    recipe = trial.recipe
    extended = recipe["extensions"][-1] if recipe.get("extensions") else None
    epochs = recipe["train"]["epochs"] if extended is None else extended["after_epochs"] + extended["epochs"]
    return {
        "trial": trial.number,
        "epoch": trial.epoch or 0,
        # What is made of weights, without training, has none.
        "epochs": epochs if recipe.get("assembly") is None else 0,
        "value": None if trial.metrics is None else trial.metrics.get(metric),
        "reported_seconds": None if trial.reported_at is None else _age(now, trial.reported_at),
        "started_seconds": _age(now, trial.started_at),
        "params": trial.params,
    }


def _age(now: float, then: float | None) -> float | None:
    """Seconds since; never less than none, where clocks differ."""
    return None if then is None else round(max(0.0, now - then), 1)


def _head(study: Glanced) -> str:
    done = sum(study["trials"].get(state, 0) for state in ENDED)
    asked = "" if study["request"] is None else f" (asked to {study['request']})"
    parts = [f"{study['study']}: {study['state']}{asked}", f"{done}/{study['trials_asked']} trials"]
    if study["best"] is not None:
        parts.append(f"best {study['metric']} {figure(study['best'])}")
    if study["process"] is not None:
        job = "" if study["job"] is None else f" (Ray job {study['job']})"
        parts.append(f"process {study['process']} on {study['host']}{job} for {clock(study['since_seconds'])}")
        parts.append(f"heard {clock(study['heard_seconds'])} ago")
    return ", ".join(parts)


def _trials(study: Glanced) -> list[RenderableType]:
    if not study["running"]:
        return []
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "epoch", study["metric"], "reported"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("params", no_wrap=True, overflow="ellipsis")
    for trial in study["running"]:
        reported = trial["reported_seconds"]
        table.add_row(
            f"{trial['trial']:04d}",
            f"{trial['epoch']}/{trial['epochs']}" if trial["epochs"] else "",
            "" if trial["value"] is None else figure(trial["value"]),
            "" if reported is None else f"{clock(reported)} ago",
            describe(trial["params"]),
        )
    return [table]
