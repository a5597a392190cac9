"""The catalog beside MLflow, as far as MLflow has been told: what it is still owed is no fault."""

from __future__ import annotations

from collections import defaultdict

from sweeper.catalog import ENDED, TrialRow
from sweeper.doctor.findings import Action, Examination, listed, name_of
from sweeper.doctor.of_history import same
from sweeper.mlflow_client import as_tracking_error, find_version
from sweeper.mlflow_runs import RUN_STATUS, RunRecord, StudyRuns
from sweeper.settings import without_password
from sweeper.show import command
from sweeper.view import counted

STUDY_STATUS = {"finished": "FINISHED", "failed": "FAILED"}
"""By the study's state; any other that nobody runs is KILLED."""


def check_runs(seen: Examination) -> None:
    """Compare the runs and the registered model with the catalog.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    here = without_password(seen.settings.tracking_uri)
    if seen.row.tracking_uri != here:
        if seen.trials and not seen.runs_now:
            _note_owed(seen, f"nothing has been told to MLflow at {here}")
        return
    database = seen.settings.tracking_file
    if database is not None and not database.exists():  # connecting would make it
        seen.find("study", f"told to MLflow at {here} by the catalog, but that database is gone", "deliver")
        return
    with as_tracking_error(seen.settings):
        runs = StudyRuns(seen.settings, seen.row, {})
        records = runs.records()
        seen.checked["runs"] += sum(record.is_active for record in records)
        _check_parent(seen, records)
        _check_surplus(seen, records)
        settled = [trial for trial in seen.settled() if trial.run_id is not None]
        by_id = {record.run_id: record for record in records if record.is_active}
        for done, trial in enumerate(settled):
            seen.progress("runs", done, len(settled))
            _check_run(seen, trial, by_id.get(str(trial.run_id)), runs)
        if seen.is_finished:
            _check_model(seen, runs)
    if not seen.runs_now:
        _count_owed(seen)


def _check_parent(seen: Examination, records: list[RunRecord]) -> None:
    run_id, state = seen.row.run_id, seen.row.state
    found = next((record for record in records if record.run_id == run_id and record.is_active), None)
    if run_id is None:
        return
    if found is None:
        seen.find("study", f"its run {run_id} is in the catalog, but not in MLflow", "deliver")
    elif not seen.runs_now and (state != "finished" or "model_version" in (seen.row.winner or {})):
        expected = STUDY_STATUS.get(state, "KILLED")
        if found.status != expected:
            said = "nobody runs it" if state == "running" else f"{state} in the catalog"
            mend: Action = "register_again" if state == "finished" else "deliver"
            seen.find("study", f"{said}, {found.status} in MLflow", mend)


def _check_surplus(seen: Examination, records: list[RunRecord]) -> None:
    """Runs made twice, and such of trials that there are not."""
    if seen.runs_now:
        return
    known = {trial.number: trial.run_id for trial in seen.trials} | {None: seen.row.run_id}
    for record in records:
        number = record.trial
        where = "study" if number is None else name_of(number)
        if not record.is_active:
            continue
        if number not in known:
            seen.find(where, f"missing in the catalog, run {record.run_id} in MLflow", "delete_run", record.run_id)
        elif known[number] is not None and known[number] != record.run_id:
            seen.find(
                where, f"run {known[number]} in the catalog, a second one in MLflow: {record.run_id}", "delete_run",
                record.run_id,
            )  # fmt: skip


def _check_run(seen: Examination, trial: TrialRow, record: RunRecord | None, runs: StudyRuns) -> None:
    where, run_id = name_of(trial.number), str(trial.run_id)
    if record is None:
        seen.find(where, f"its run {run_id} is in the catalog, but not in MLflow", "tell_again", run_id)
        return
    expected = RUN_STATUS[trial.state] if trial.state in ENDED else "KILLED"
    if (trial.delivered if trial.state in ENDED else not seen.runs_now) and record.status != expected:
        seen.find(where, f"{trial.state} in the catalog, {record.status} in MLflow", "tell_again", run_id)
    told: dict[str, dict[int, float]] = defaultdict(dict)
    for epoch in seen.epochs_of(trial):
        for name, value in {**epoch.metrics, "epoch.seconds": epoch.seconds}.items():
            told[name][epoch.epoch] = value
    owed = {epoch.epoch for epoch in seen.epochs_of(trial) if not epoch.delivered}
    for name, values in told.items():
        _check_metric(seen, trial, name, values, owed, runs.logged(run_id, name))


def _check_metric(
    seen: Examination,
    trial: TrialRow,
    name: str,
    values: dict[int, float],
    owed: set[int],
    logged: dict[int, list[float]],
) -> None:
    where, run_id = name_of(trial.number), str(trial.run_id)
    missing = sorted(values.keys() - logged.keys() - owed)
    if missing:
        seen.find(where, f"{name} of {listed(missing)} in the catalog, missing in MLflow", "tell_again", run_id)
    surplus = sorted(logged.keys() - values.keys())
    if surplus:
        seen.find(where, f"{name} of {listed(surplus)} missing in the catalog, in MLflow", "run_anew", run_id)
    for epoch in sorted(values.keys() & logged.keys()):
        found = logged[epoch]
        if len(found) > 1:
            seen.find(where, f"{name} of epoch {epoch} is in MLflow {len(found)} times", "run_anew", run_id)
        elif not same(values[epoch], found[0]):
            seen.find(
                where, f"{name} of epoch {epoch} is {values[epoch]} in the catalog, {found[0]} in MLflow", "run_anew",
                run_id,
            )  # fmt: skip


def _check_model(seen: Examination, runs: StudyRuns) -> None:
    winner = seen.row.winner
    if winner is None or "model_version" not in winner:
        return
    version = str(winner["model_version"])
    name = seen.row.name
    if find_version(seen.settings, runs.client, name, version=version) is None:
        seen.find("study", f"model version {version} in the catalog, missing in MLflow", "register_again")
    elif (best := find_version(seen.settings, runs.client, name, alias="best")) != version:
        there = "none" if best is None else f"version {best}"
        seen.find("study", f"model version {version} in the catalog, {there} has the alias best", "register_again")


def _count_owed(seen: Examination) -> None:
    epochs = sum(not epoch.delivered for trial in seen.trials for epoch in seen.epochs_of(trial))
    trials = sum(
        trial.run_id is None or not trial.described or (trial.state in ENDED and not trial.delivered)
        for trial in seen.trials
    )
    model = seen.is_finished and seen.row.winner is not None and "model_version" not in seen.row.winner
    if epochs or trials or model:
        said = [f"{counted(epochs, 'epochs')} of {counted(trials, 'trials')}"]
        _note_owed(seen, " and ".join([*said, *(["the winner's model"] if model else [])]) + " are owed to MLflow")


def _note_owed(seen: Examination, what: str) -> None:
    seen.notes.append(f"{what}; deliver with: {command(seen.settings, 'sync', seen.row.name)}")
