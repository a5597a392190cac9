"""What is known of a study, for people and for programs."""

from __future__ import annotations

import itertools
import shlex
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from sweeper.catalog import ENDED, Catalog, StudyRow, TrialRow
from sweeper.finish.verdict import lines as verdict_lines
from sweeper.lease import is_held
from sweeper.rank.leaderboard import Gain, figure, gain_of_averaging, leaderboard
from sweeper.report.learning_curve import FRACTION, Point, learning_curve, rows
from sweeper.settings import Settings, without_password
from sweeper.study_folder import StudyFolder
from sweeper.view import STYLES, attempt_line, describe
from trials.result import METRICS

LEADERBOARD_ROWS = 10


def state_of(study: StudyRow) -> str:
    """The state of a study; one whose orchestrator died is stopped, whatever its row says."""
    return "stopped" if study.state == "running" and not is_held(study) else study.state


def list_studies(catalog: Catalog) -> list[dict[str, Any]]:
    """All studies as `sweeper list --json` prints them, oldest first."""
    listed = []
    for study in catalog.studies():
        ranked = leaderboard(catalog.weights(study.id), study.metric)
        listed.append(
            {
                "study": study.name,
                "state": state_of(study),
                "created": _time(study.created_at),
                "trials_asked": study.trials_asked,
                "trials": dict(catalog.count_trials(study.id, "search")),
                "metric": study.metric,
                "best": ranked[0].value if ranked else None,
            }
        )
    return listed


def describe_study(catalog: Catalog, name: str, settings: Settings) -> dict[str, Any]:
    """One study as `sweeper show --json` prints it.

    Raises:
        StoreError: there is no study of that name.
    """
    study = catalog.study(name)
    epochs = catalog.epochs(study.id)
    ranked = leaderboard(catalog.weights(study.id), study.metric)
    folder = StudyFolder(settings.home, name).root
    return {
        "study": study.name,
        "state": state_of(study),
        "metric": study.metric,
        "direction": METRICS[study.metric],
        "trials_asked": study.trials_asked,
        "trials": [
            {
                "number": trial.number,
                "role": trial.role,
                "state": _state_of_trial(study, trial),
                "value": trial.value,
                "params": trial.params,
                "reason": trial.reason,
                "failure": trial.failure,
                "attempts": [{**attempt, "at": _time(attempt["at"])} for attempt in trial.attempts],
                "extensions": trial.recipe.get("extensions", []),
                "epochs": [{"epoch": e.epoch, "metrics": e.metrics} for e in epochs.get(trial.id, [])],
            }
            for trial in catalog.trials(study.id)
        ],
        "leaderboard": [
            {"kind": row.kind, "trial": row.trial, "value": row.value, "path": str(folder / row.path)} for row in ranked
        ],
        "learning_curve": [
            {"low": point.low, "high": point.high, "trials": len(point.trials), "best": point.best}
            for point in _learning_curve(catalog, study)
        ],
        "winner": _winner(study),
    }


def print_studies(catalog: Catalog, console: Console) -> None:
    """All studies as a table."""
    studies = list_studies(catalog)
    if not studies:
        console.print(
            f"no studies yet in {catalog.place}; begin with: sweeper init",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return
    table = Table(box=None, pad_edge=False)
    for column in ("study", "state", "trials", "best", "metric", "created"):
        table.add_column(column)
    for study in studies:
        done = sum(study["trials"].get(state, 0) for state in ENDED)
        best = "" if study["best"] is None else figure(study["best"])
        table.add_row(
            study["study"],
            study["state"],
            f"{done}/{study['trials_asked']}",
            best,
            study["metric"],
            study["created"].replace("T", " ")[:16],
        )
    console.print(table)


def print_study(catalog: Catalog, name: str, settings: Settings, console: Console) -> None:
    """One study: its trials, and when it is finished its results."""
    study = describe_study(catalog, name, settings)
    continued = {
        "stopped": "; `sweeper start` with its file continues it",
        "paused": f"; `{command(settings, 'resume', name)}` continues it",
        "failed": "; `sweeper start` tries again",
    }
    head = f"{study['study']}: {study['state']}{continued.get(study['state'], '')}"
    console.print(head, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column, justify in (("trial", "right"), ("state", "left"), ("epochs", "right"), (study["metric"], "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("params, and why it failed", overflow="fold")
    for trial in study["trials"]:
        value = "" if trial["value"] is None else figure(trial["value"])
        table.add_row(
            f"{trial['number']:04d}",
            trial["state"],
            _epochs(trial),
            value,
            "\n".join(_story(trial)),
            style=STYLES.get(trial["state"]) if trial["state"] == "failed" else None,
        )
    console.print(table)
    if study["leaderboard"]:
        print_results(catalog, name, settings, console)


def _story(trial: dict[str, Any]) -> list[str]:
    """What was tried, why that failed, and what it went through: a line each, where there is anything to say."""
    told = [describe(trial["params"]), trial["reason"] or "", *map(attempt_line, trial["attempts"])]
    return [line for line in told if line]


def print_results(catalog: Catalog, name: str, settings: Settings, console: Console) -> None:
    """The leaderboard, what averaging gained, the winner, and the lines to look further and to pull."""
    study = catalog.study(name)
    ranked = leaderboard(catalog.weights(study.id), study.metric)
    console.print(
        f"leaderboard of {name}: {study.metric} on the selection split", markup=False, highlight=False, soft_wrap=True
    )
    table = Table(box=None)
    made = {trial.number: trial for trial in catalog.trials(study.id) if trial.role != "search"}
    columns = [("", "right"), ("weights", "left"), ("trial", "right"), ("value", "right")]
    for column, justify in [*columns, *([("made by", "left")] if made else [])]:
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for place, row in enumerate(ranked[:LEADERBOARD_ROWS], start=1):
        how = [describe(made[row.trial].params) if row.trial in made else "the search"] if made else []
        table.add_row(str(place), row.kind, f"{row.trial:04d}", figure(row.value), *how)
    console.print(table)
    _print_learning_curve(_learning_curve(catalog, study), study.metric, console)
    lines = []
    if len(ranked) > LEADERBOARD_ROWS:
        more = command(settings, "rank", name)
        lines.append(f"and {len(ranked) - LEADERBOARD_ROWS} more: {more}")
    # Before the end nothing is decided, and a gain would be read as a result.
    winner = study.winner
    if winner is not None and "verdict" in winner:
        _print_ways(winner["verdict"], study.metric, console)
        lines += verdict_lines(winner["verdict"], study.metric)
    elif winner is not None and (gain := gain_of_averaging(ranked, study.metric)) is not None:
        lines.append(_gain_line(gain, study.metric))
    if winner is not None:
        metric = winner["metric"].removeprefix("validation.")
        test = winner["test"]
        value = f"test {metric} {figure(test[f'test.{metric}'])}"
        if f"test.{metric}.low" in test:
            low, high = figure(test[f"test.{metric}.low"]), figure(test[f"test.{metric}.high"])
            value += f" (95 % interval {low} to {high})"
        way = f" ({winner['verdict']['way']})" if "verdict" in winner else ""
        lines.append(f"winner: {winner['kind']} of trial {winner['trial']:04d}{way}, {value}, {_looks(winner)}")
        lines.append("pull it:   " + command(settings, "pull", name, "-o", f"{name}-best"))
    if settings.tracking_is_local:
        lines.append("browse it: " + command(settings, "ui"))
    else:
        lines.append(f"browse it: {without_password(settings.tracking_uri)}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _print_ways(verdict: dict[str, Any], metric: str, console: Console) -> None:
    """The ways that led to a model, each with what it cost."""
    console.print(f"ways to a model: {metric}", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None)
    table.add_column("way")
    for column in ("selection", "confirmation", "epochs it cost", "weights", "trial"):
        table.add_column(column, justify="right")
    for way in verdict["ways"]:
        cost = str(way["cost_epochs"]) if way["cost_epochs"] else ""
        values = (figure(way["selection"]), figure(way["confirmation"]), cost)
        table.add_row(way["way"], *values, way["kind"], f"{way['trial']:04d}")
    console.print(table)


def _learning_curve(catalog: Catalog, study: StudyRow) -> list[Point]:
    """The curve of a study that is finished and varied the share of the training split; else no points."""
    return [] if study.winner is None else learning_curve(catalog.trials(study.id), study.metric)


def _print_learning_curve(points: list[Point], metric: str, console: Console) -> None:
    if not points:
        return
    console.print(f"learning curve: best {metric} by {FRACTION}", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None)
    for column in (FRACTION, "trials", "best"):
        table.add_column(column, justify="right")
    for row in rows(points):
        table.add_row(*row)
    console.print(table)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _epochs(trial: dict[str, Any]) -> str:
    """How many epochs a trial has been trained, and of these in each extension: ``12+10``."""
    ends = [extension["after_epochs"] for extension in trial["extensions"]] + [len(trial["epochs"])]
    return "+".join(str(end - start) for start, end in itertools.pairwise([0, *ends]))


def _looks(winner: dict[str, Any]) -> str:
    """How often the test split was looked at, each time with the winner of then."""
    return "looked at once" if winner["test_looks"] == 1 else f"looked at {winner['test_looks']} times"


def _gain_line(gain: Gain, metric: str) -> str:
    amount = figure(gain.amount)
    verdict = f"gained {amount}" if gain.amount > 0 else f"gained nothing ({'' if gain.amount < 0 else '+'}{amount})"
    lower = " (lower is better)" if METRICS[metric] == "minimize" else ""
    best = f"best average {figure(gain.best_average.value)}, best single {figure(gain.best_single.value)}"
    return f"averaging {verdict} in {metric}{lower}: {best}"


def command(settings: Settings, *words: str) -> str:
    """A command line that can be copied: quoted, with `--home` where the next command would look elsewhere."""
    from sweeper.settings import load_settings

    home = [] if load_settings().home == settings.home else ["--home", str(settings.home)]
    return shlex.join(["sweeper", *words, *home])


def start_again(study: StudyRow) -> tuple[str, ...]:
    """The words that let a study go on as it last did: in a terminal, or as a Ray job."""
    return ("start", study.file, *([] if study.job is None else ["--detach"]))


def _winner(study: StudyRow) -> dict[str, Any] | None:
    if study.winner is None:
        return None
    winner = study.winner
    metric = winner["metric"].removeprefix("validation.")
    return {
        "kind": winner["kind"],
        "trial": winner["trial"],
        "selection": winner["selection"][winner["metric"]],
        "test": winner["test"][f"test.{metric}"],
        "selection_metrics": winner["selection"],
        "test_metrics": winner["test"],
        "test_looks": winner["test_looks"],
        "model_version": winner.get("model_version"),
        "verdict": winner.get("verdict"),
    }


def _state_of_trial(study: StudyRow, trial: TrialRow) -> str:
    return "waiting" if trial.state == "running" and not is_held(study) else trial.state
