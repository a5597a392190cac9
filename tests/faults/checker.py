"""The five invariants of docs/reliability.md, verified from the outside on what a study left behind.

1. A trial that has ended is never run again; an interrupted one goes on under its own number, Optuna trial and run.
2. Each epoch of each trial is recorded once and only once, in the catalog, in Optuna and in MLflow.
3. A finished study has nothing running, and the three tell the same story.
4. Each file that the catalog names exists and has the digest it says.
5. What was sampled is what an uninterrupted study samples, and nothing is sampled twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.records import (
    CatalogRecords,
    MlflowRun,
    OptunaTrial,
    Place,
    optuna_studies,
    read_catalog,
    read_mlflow,
    read_optuna,
    read_trained,
    read_versions,
    saved_epochs,
    sha256,
)

ENDED = ("complete", "pruned", "failed")
OPTUNA_STATE = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
UNTOLD_AS_BAD = ("diverged", "infeasible")
"""Failures that Optuna hears of as a broken constraint, in a trial that counts as PRUNED."""
MLFLOW_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
FIXED_ONCE_ENDED = ("state", "value", "reason", "params", "ended_at")


@dataclass(frozen=True)
class Snapshot:
    """What was known at one moment, and must still be so at the end."""

    trials: Mapping[int, Mapping[str, Any]]
    epochs: Mapping[int, Mapping[int, Mapping[str, Any]]]
    optuna_ids: Mapping[int, int]
    saved: Mapping[int, int]
    """The newest epoch of each trial whose state was on the disk."""
    trained: int
    """How many batches had been trained on, of all trials together, when all the rest had been read."""


@dataclass
class Findings:
    """What the checker found."""

    violations: list[str] = field(default_factory=list)
    lost_epochs: int = 0
    duplicates: int = 0

    def lost(self, line: str) -> None:
        self.lost_epochs += 1
        self.violations.append(line)

    def duplicate(self, line: str) -> None:
        self.duplicates += 1
        self.violations.append(line)


@dataclass(frozen=True)
class Twin:
    """The same study, never interrupted: what was sampled and what came of it."""

    params: Mapping[int, Mapping[str, Any]]
    metrics: Mapping[int, Mapping[int, Mapping[str, float]]]
    values: Mapping[int, float | None]
    states: Mapping[int, str]


def take_snapshot(place: Place) -> Snapshot:
    """What is known now; also while the study runs: what is read later can only be newer."""
    catalog = read_catalog(place)
    trials = {} if catalog is None else catalog.trials
    epochs = {} if catalog is None else catalog.epochs
    history = [] if catalog is None or not trials else read_optuna(place, catalog.study["history"])
    saved = saved_epochs(place)
    return Snapshot(trials, epochs, {trial.number: trial.id for trial in history}, saved, len(read_trained(place)))


def read_twin(place: Place) -> Twin:
    """The twin that others are compared with."""
    catalog = _catalog(place)
    return Twin(
        params={number: trial["params"] for number, trial in catalog.trials.items()},
        metrics={
            number: {epoch: row["metrics"] for epoch, row in rows.items()} for number, rows in catalog.epochs.items()
        },
        values={number: trial["value"] for number, trial in catalog.trials.items()},
        states={number: trial["state"] for number, trial in catalog.trials.items()},
    )


def check(
    place: Place,
    *,
    batches_per_epoch: int,
    before: Sequence[Snapshot] = (),
    twin: Twin | None = None,
    damaged: Collection[int] = (),
) -> Findings:
    """All that is wrong with a study whose `sweeper start` has returned 0.

    Args:
        place: where it lies.
        batches_per_epoch: how often its model sees a batch in an epoch of training.
        before: what was known before and after each fault, oldest first.
        twin: the same study, never interrupted.
        damaged: trials whose checkpoint was damaged on purpose, which may train epochs again.
    """
    findings = Findings()
    catalog = _catalog(place)
    history = read_optuna(place, catalog.study["history"])
    runs = read_mlflow(place, str(catalog.study["created_at"]))
    for snapshot in before:
        _check_kept(catalog, history, snapshot, findings)
        _check_not_run_again(place, catalog, snapshot, batches_per_epoch, damaged, findings)
    _check_epochs(catalog, history, runs, findings)
    _check_story(place, catalog, history, runs, findings)
    _check_files(place, catalog, findings)
    _check_sampling(catalog, twin, findings)
    findings.violations = list(dict.fromkeys(findings.violations))
    return findings


def _catalog(place: Place) -> CatalogRecords:
    catalog = read_catalog(place)
    if catalog is None:
        raise LookupError(f"the catalog of {place.home} does not know a study {place.study!r}")
    return catalog


def _check_kept(
    catalog: CatalogRecords, history: Sequence[OptunaTrial], snapshot: Snapshot, findings: Findings
) -> None:
    """Invariants 1 and 2: what was recorded then is recorded now, as it was."""
    ids = {trial.number: trial.id for trial in history}
    for number, was in snapshot.trials.items():
        now = catalog.trials.get(number)
        if now is None:
            findings.violations.append(f"trial {number}: it was in the catalog and is gone")
            continue
        fixed = FIXED_ONCE_ENDED if was["state"] in ENDED else ("params",)
        for name in fixed:
            if now[name] != was[name]:
                findings.violations.append(f"trial {number}: {name} was {was[name]!r} and became {now[name]!r}")
        if was["run_id"] is not None and now["run_id"] != was["run_id"]:
            findings.violations.append(f"trial {number}: another MLflow run than before")
    for number, trial_id in snapshot.optuna_ids.items():
        if ids.get(number) != trial_id:
            findings.violations.append(f"trial {number}: another Optuna trial than before")
    for number, epochs in snapshot.epochs.items():
        for epoch, recorded in epochs.items():
            present = catalog.epochs.get(number, {}).get(epoch)
            if present is None:
                findings.lost(f"trial {number}: epoch {epoch} was in the catalog and is gone")
            elif (present["reported_at"], present["metrics"]) != (recorded["reported_at"], recorded["metrics"]):
                findings.duplicate(f"trial {number}: epoch {epoch} was recorded a second time in the catalog")


def _check_not_run_again(
    place: Place,
    catalog: CatalogRecords,
    snapshot: Snapshot,
    batches_per_epoch: int,
    damaged: Collection[int],
    findings: Findings,
) -> None:
    """Invariant 1, by what the model itself wrote down: no batch of a finished epoch is trained on again."""
    again: set[tuple[int, int]] = set()
    for batch in read_trained(place)[snapshot.trained :]:
        number = batch.trial
        if number not in catalog.trials:
            findings.violations.append(f"trial {number}: it was trained, and is not in the catalog")
            continue
        start = catalog.trials[number]["recipe"]["start"]
        epoch = (batch.batch - 1) // batches_per_epoch + 1 - (start["epochs"] if start else 0)
        if snapshot.trials.get(number, {}).get("state") in ENDED:
            findings.violations.append(f"trial {number}: it had ended and trained again")
        finished = max([snapshot.saved.get(number, 0), *snapshot.epochs.get(number, {})])
        if epoch <= finished and number not in damaged:
            again.add((number, epoch))
    for number, epoch in sorted(again):
        findings.lost(f"trial {number}: epoch {epoch} was finished and was trained again")


def _check_epochs(
    catalog: CatalogRecords, history: Sequence[OptunaTrial], runs: Sequence[MlflowRun], findings: Findings
) -> None:
    """Invariant 2."""
    metric = catalog.study["metric"]
    reports = {trial.number: trial.reports for trial in history}
    children = _children(runs)
    for number, trial in catalog.trials.items():
        epochs = catalog.epochs[number]
        planned = 0 if trial["recipe"]["assembly"] else trial["recipe"]["train"]["epochs"]
        last = planned if trial["state"] == "complete" else max(epochs, default=0)
        for epoch in sorted(set(range(1, last + 1)) - set(epochs)):
            findings.lost(f"trial {number}: epoch {epoch} is missing in the catalog")
        for epoch in sorted(set(epochs) - set(range(1, last + 1))):
            findings.duplicate(f"trial {number}: epoch {epoch} is in the catalog, beyond its last, {last}")
        if trial["role"] == "search":
            _check_reports(number, epochs, reports.get(number, {}), metric, findings)
        for run in children.get(number, [])[:1]:
            _check_metrics(number, epochs, run, findings)


def _check_reports(
    number: int, epochs: Mapping[int, Mapping[str, Any]], told: Mapping[int, float], metric: str, findings: Findings
) -> None:
    """Each epoch is in Optuna, with its value."""
    for epoch in sorted(set(epochs) - set(told)):
        findings.lost(f"trial {number}: epoch {epoch} is missing in Optuna")
    for epoch in sorted(set(told) - set(epochs)):
        findings.duplicate(f"trial {number}: epoch {epoch} is in Optuna, and not in the catalog")
    for epoch in sorted(set(told) & set(epochs)):
        if told[epoch] != epochs[epoch]["metrics"][metric]:
            findings.violations.append(f"trial {number}: epoch {epoch} has another {metric} in Optuna")


def _check_metrics(number: int, epochs: Mapping[int, Mapping[str, Any]], run: MlflowRun, findings: Findings) -> None:
    """Each number of each epoch is in the run once, at the time of its report."""
    names = {"epoch.seconds"}.union(*(row["metrics"] for row in epochs.values()))
    for name in sorted(names):
        logged = run.metrics.get(name, {})
        for epoch, row in epochs.items():
            expected = row["seconds"] if name == "epoch.seconds" else row["metrics"].get(name)
            points = logged.get(epoch, [])
            if len(points) > 1:
                findings.duplicate(f"trial {number}: {name} of epoch {epoch} is in MLflow {len(points)} times")
            elif expected is not None and not points:
                findings.lost(f"trial {number}: {name} of epoch {epoch} is missing in MLflow")
            elif points and points[0] != (expected, int(row["reported_at"] * 1000)):
                findings.violations.append(f"trial {number}: {name} of epoch {epoch} is another in MLflow")
        for step in sorted(set(logged) - set(epochs)):
            findings.duplicate(f"trial {number}: {name} of epoch {step} is in MLflow, and not in the catalog")


def _check_story(
    place: Place,
    catalog: CatalogRecords,
    history: Sequence[OptunaTrial],
    runs: Sequence[MlflowRun],
    findings: Findings,
) -> None:
    """Invariant 3."""
    study, say = catalog.study, findings.violations.append
    for name, expected in (("state", "finished"), ("owner", None), ("request", None)):
        if study[name] != expected:
            say(f"the study's {name} is {study[name]!r}, expected {expected!r}")
    searched = _searched(catalog)
    if len(searched) != study["trials_asked"]:
        say(f"{len(searched)} trials are in the catalog, {study['trials_asked']} were asked for")
    for name in sorted(optuna_studies(place) - {study["history"]}):
        say(f"Optuna has a study {name!r} that nobody uses")
    if [trial.number for trial in history] != searched:
        say(f"Optuna has the trials {[trial.number for trial in history]}, the catalog {searched}")
    for trial in history:
        if trial.number in searched:
            for line in _differences(catalog.trials[trial.number], trial):
                say(f"trial {trial.number}: {line}")
    _check_made(catalog, findings)
    _check_runs(catalog, runs, findings)
    _check_winner(place, catalog, findings)


def _searched(catalog: CatalogRecords) -> list[int]:
    """The trials that the search asked for: Optuna knows of no others."""
    return [number for number, trial in catalog.trials.items() if trial["role"] == "search"]


def _check_made(catalog: CatalogRecords, findings: Findings) -> None:
    """What was trained or made beside the search's trials has ended, and was made once."""
    first: dict[str, int] = {}
    for number, trial in catalog.trials.items():
        if trial["state"] not in ENDED:
            findings.violations.append(f"trial {number}: it is {trial['state']} in the catalog")
        recipe = json.dumps(trial["recipe"], sort_keys=True)
        if recipe in first:
            findings.duplicate(f"trial {number}: made by the recipe of trial {first[recipe]}")
        first.setdefault(recipe, number)
    is_finishing = len(catalog.trials) > len(_searched(catalog))
    if is_finishing and "verdict" not in (catalog.study["winner"] or {}):
        findings.violations.append("the study's winner was chosen without a verdict on the finalists")


def _differences(row: Mapping[str, Any], trial: OptunaTrial) -> Iterator[str]:
    """What the catalog and Optuna say differently about a trial."""
    if row["state"] not in ENDED:
        return
    expected = "PRUNED" if row["failure"] in UNTOLD_AS_BAD else OPTUNA_STATE[row["state"]]
    if trial.state != expected:
        yield f"it is {row['state']} in the catalog and {trial.state} in Optuna"
    elif row["state"] == "complete" and trial.value != row["value"]:
        yield f"its value is {row['value']} in the catalog and {trial.value} in Optuna"
    for name, value in trial.params.items():
        if name in row["params"] and row["params"][name] != value and str(row["params"][name]) != str(value):
            yield f"{name} is {row['params'][name]!r} in the catalog and {value!r} in Optuna"


def _children(runs: Sequence[MlflowRun]) -> dict[int, list[MlflowRun]]:
    """The runs of each trial: one, if all is well."""
    children: dict[int, list[MlflowRun]] = {}
    for run in runs:
        if run.tags.get("sweeper.role") == "trial":
            children.setdefault(int(run.tags["sweeper.trial"]), []).append(run)
    return children


def _check_runs(catalog: CatalogRecords, runs: Sequence[MlflowRun], findings: Findings) -> None:
    say, children = findings.violations.append, _children(runs)
    parents = [run for run in runs if run.tags.get("sweeper.role") == "study"]
    if [run.id for run in parents] != [catalog.study["run_id"]]:
        say(f"MLflow has {len(parents)} runs of the study, expected the one that the catalog names")
    for run in parents:
        if run.status != "FINISHED":
            say(f"the study's run in MLflow is {run.status}")
    for number in sorted(set(children) - set(catalog.trials)):
        say(f"MLflow has a run of trial {number}, which the catalog does not know")
    for number, row in catalog.trials.items():
        found = children.get(number, [])
        if len(found) > 1:
            findings.duplicate(f"trial {number}: {len(found)} runs in MLflow")
        if row["run_id"] not in [run.id for run in found]:
            say(f"trial {number}: the run that the catalog names is not in MLflow")
        for run in found:
            if run.status != MLFLOW_STATUS.get(row["state"]):
                say(f"trial {number}: it is {row['state']} in the catalog and {run.status} in MLflow")
            if run.tags.get("state") != row["state"]:
                say(f"trial {number}: it is {row['state']} in the catalog, its tag in MLflow says otherwise")
            if row["state"] == "complete" and _only(run, "value") != row["value"]:
                say(f"trial {number}: its value is {row['value']} in the catalog and another in MLflow")
            for name, value in row["params"].items() if row["role"] == "search" else ():
                if name in run.params and run.params[name] != str(value):
                    say(f"trial {number}: {name} is {value!r} in the catalog and {run.params[name]!r} in MLflow")


def _only(run: MlflowRun, name: str) -> float | None:
    """The one value of a metric; ``None`` if there is none, or more than one."""
    points = [value for values in run.metrics.get(name, {}).values() for value, _ in values]
    return points[0] if len(points) == 1 else None


def _check_winner(place: Place, catalog: CatalogRecords, findings: Findings) -> None:
    say, winner = findings.violations.append, catalog.study["winner"]
    if winner is None:
        say("the study has no winner")
        return
    versions = read_versions(place)
    ours = [version for version in versions if version.run_id == catalog.study["run_id"]]
    best = [version.weights_sha256 for version in ours if "best" in version.aliases]
    if best != [winner["sha256"]]:
        say("the winner's weights are not registered as @best")
    for digest, times in Counter(version.weights_sha256 for version in ours).items():
        if times > 1:
            findings.duplicate(f"the weights {str(digest)[:12]} are registered {times} times")


def _check_files(place: Place, catalog: CatalogRecords, findings: Findings) -> None:
    """Invariant 4."""
    say = findings.violations.append
    named = [(row["path"], row["sha256"], row["bytes"]) for row in catalog.weights]
    if catalog.study["winner"] is not None:
        winner = catalog.study["winner"]
        package = "winner" if winner["package"] == 1 else f"winner-{winner['package']}"
        named.append((f"{package}/weights.safetensors", winner["sha256"], None))
    for path, digest, size in named:
        file = place.folder / path
        if not file.is_file():
            say(f"{path}: the catalog names it, and it is not there")
        elif sha256(file) != digest or size not in (None, file.stat().st_size):
            say(f"{path}: its content is not what the catalog says")
    kept = {row["number"] for row in catalog.weights}
    for number, trial in catalog.trials.items():
        if trial["state"] == "complete" and number not in kept:
            say(f"trial {number}: it is complete and has no weights")


def _check_sampling(catalog: CatalogRecords, twin: Twin | None, findings: Findings) -> None:
    """Invariant 5, and that an interrupted study makes the same trials, and comes to the same in each, bit for bit."""
    say = findings.violations.append
    first: dict[str, int] = {}
    for number in _searched(catalog):
        trial = catalog.trials[number]
        sampled = repr(sorted(trial["params"].items()))
        if sampled in first:
            findings.duplicate(f"trial {number}: sampled exactly as trial {first[sampled]}")
        first.setdefault(sampled, number)
    if twin is None:
        return
    for number in sorted(set(twin.params) ^ set(catalog.trials)):
        where = "uninterrupted alone" if number in twin.params else "not when uninterrupted"
        say(f"trial {number}: it is there {where}")
    for number, trial in catalog.trials.items():
        if number not in twin.params:
            continue
        if trial["params"] != twin.params.get(number):
            say(f"trial {number}: sampled otherwise than in an uninterrupted study")
        elif trial["state"] != twin.states[number]:
            say(f"trial {number}: it is {trial['state']} ({trial['reason']}), uninterrupted {twin.states[number]}")
        elif trial["value"] != twin.values[number]:
            say(f"trial {number}: its value is {trial['value']}, uninterrupted {twin.values[number]}")
        else:
            for epoch, metrics in twin.metrics[number].items():
                found = catalog.epochs[number].get(epoch)
                if found is not None and found["metrics"] != metrics:
                    say(f"trial {number}: epoch {epoch} came to other numbers than uninterrupted")
