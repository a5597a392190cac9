"""`run_study`: the loop that asks, dispatches, reports and tells until the study is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sweeper.catalog import Catalog, StudyRow, TrialRow, WeightsRow
from sweeper.dispatch import Workers
from sweeper.errors import StudyFailed
from sweeper.runner import Completed, Event, Failed, Job, Reported, Stopped
from sweeper.search import Proposal, Search
from sweeper.storage import keep_resume_points
from sweeper.study import Study
from sweeper.study_folder import StudyFolder
from trials.recipe import Recipe
from trials.result import EpochReport

RETRIES = 3
"""How often a trial whose worker died is continued before it counts as failed."""
HOPELESS_FAILURES = 3
"""A study whose first trials all fail for one reason is stopped after this many."""
POLL_SECONDS = 1.0


class Progress(Protocol):
    """Whoever watches a study."""

    def started(self, number: int, params: Mapping[str, Any], epochs: int, after_epochs: int = 0) -> None:
        """A trial began; or one that had finished after ``after_epochs`` goes on to ``epochs``."""

    def reported(self, number: int, report: EpochReport) -> None:
        """A trial finished an epoch."""

    def ended(self, number: int, state: str, value: float | None, reason: str | None) -> None:
        """A trial ended: ``complete``, ``pruned`` or ``failed``."""

    def tick(self) -> None:
        """Time passed."""


@dataclass
class _Running:
    row: TrialRow
    job: Job
    value: float | None = None
    retries_left: int = RETRIES


@dataclass
class _Sweep:
    """What the loop holds while it runs."""

    study: Study
    row: StudyRow
    search: Search
    workers: Workers
    catalog: Catalog
    progress: Progress
    folder: StudyFolder
    import_paths: tuple[str, ...]
    known: dict[int, TrialRow]
    """Trials that an earlier run of this study left in the catalog."""
    extendable: list[WeightsRow]
    """Weights of the best complete trials, which keep what an extension would go on from."""
    running: dict[int, _Running] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    ended_well: bool = False


def run_study(
    study: Study,
    row: StudyRow,
    search: Search,
    workers: Workers,
    catalog: Catalog,
    progress: Progress,
    *,
    folder: StudyFolder,
    import_paths: tuple[str, ...] = (),
) -> None:
    """Run the trials and extensions that are missing; on return each trial is complete, pruned or failed.

    Args:
        study: what study.yaml says.
        row: the study's row in the catalog.
        search: what to try next.
        workers: where trials run.
        catalog: where all of it is recorded, before anything else is told.
        progress: who watches.
        folder: the study's folder; trials write below it.
        import_paths: where the user's own modules are found.

    Raises:
        StudyFailed: the first trials all failed for the same reason.
        StoreError: the database cannot be written.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.study_file.write_text(study.text, encoding="utf-8")
    known = {trial.number: trial for trial in catalog.trials(row.id)}
    complete = catalog.weights(row.id, of="complete")
    extendable = keep_resume_points(complete, row.metric, study.storage.extendable, folder)
    sweep = _Sweep(study, row, search, workers, catalog, progress, folder, import_paths, known, extendable)
    sweep.ended_well = any(trial.state in ("complete", "pruned") for trial in known.values())
    waiting: list[Proposal | TrialRow] = [*_extended(sweep), *_interrupted(sweep)]
    while True:
        while workers.free and (waiting or search.asked < study.search.trials):
            _submit(sweep, waiting.pop(0) if waiting else search.ask())
        if not sweep.running:
            return
        event = workers.wait(POLL_SECONDS)
        if event is not None:
            _handle(sweep, event)
        progress.tick()


def _extended(sweep: _Sweep) -> list[TrialRow]:
    """Trials with epochs to add; the search knows them as complete, and hears no more of them."""
    return [trial for trial in sweep.known.values() if trial.is_extended and trial.state in ("running", "waiting")]


def _interrupted(sweep: _Sweep) -> list[Proposal]:
    """Trials that a dead orchestrator left open, to be continued; ends it had recorded are told to the search."""
    waiting = []
    for number in sweep.search.running():
        proposal = sweep.search.reopen(number)
        row = sweep.known.get(number)
        if row is None or row.state in ("running", "waiting"):
            waiting.append(proposal)
        elif row.state == "complete" and row.value is not None:
            sweep.search.complete(number, row.value)
        elif row.state == "pruned":
            sweep.search.prune(number)
        else:
            sweep.search.fail(number, row.reason or "failed")
    return waiting


def _submit(sweep: _Sweep, ready: Proposal | TrialRow) -> None:
    row = _running_row(sweep, ready)
    job = Job(
        number=row.number,
        # A trial goes on with the recipe it began with, whatever defaults a newer version of sweeper has.
        recipe_json=json.dumps(row.recipe),
        folder=str(sweep.folder.trial(row.number)),
        import_paths=sweep.import_paths,
        threads=sweep.workers.threads,
        must_see=str(sweep.folder.study_file),
    )
    sweep.running[row.number] = _Running(row, job)
    recipe = Recipe.model_validate_json(job.recipe_json)
    after_epochs = recipe.extensions[-1].after_epochs if recipe.extensions else 0
    sweep.progress.started(row.number, row.params, recipe.epochs, after_epochs)
    sweep.workers.submit(job)


def _running_row(sweep: _Sweep, ready: Proposal | TrialRow) -> TrialRow:
    """The trial's row in the catalog, which says from now on that it runs."""
    if isinstance(ready, Proposal) and ready.number not in sweep.known:
        recipe = json.loads(ready.recipe.model_dump_json())
        return sweep.catalog.add_trial(sweep.row.id, ready.number, params=ready.params, recipe=recipe)
    row = sweep.known[ready.number]
    sweep.catalog.set_trial(row.id, state="running")
    return row


def _handle(sweep: _Sweep, event: Event) -> None:
    match event:
        case Reported():
            _report(sweep, event)
        case Completed():
            _complete(sweep, event)
        case Stopped():
            _prune(sweep, event)
        case Failed():
            _fail(sweep, event)


def _report(sweep: _Sweep, event: Reported) -> None:
    trial, report = sweep.running[event.number], event.report
    trial.value = report.metrics[sweep.study.search.metric]
    # Recorded before the trial may go on: what a checkpoint holds is then never unknown to the catalog for long.
    sweep.catalog.add_epoch(trial.row.id, report)
    promising = trial.row.is_extended or sweep.search.report(event.number, report.epoch, trial.value)
    # After the last epoch nothing is left to save by pruning.
    sweep.workers.answer(event.number, promising or report.epoch >= report.epochs)
    sweep.progress.reported(event.number, report)


def _complete(sweep: _Sweep, event: Completed) -> None:
    trial, result, metric = sweep.running.pop(event.number), event.result, sweep.study.search.metric
    best = result.weights[0].metrics[metric]
    kept = [(file, sweep.folder.named(event.number, file.path), file.metrics[metric]) for file in result.weights]
    facts = {
        "epochs": result.epochs,
        "parameters": result.parameters,
        "seconds": round(result.seconds, 3),
        "device": result.device,
        "peak_memory_bytes": result.peak_memory_bytes,
        "skipped_steps": result.skipped_steps,
        "notes": "; ".join(result.notes),
        "weights": {
            f"weights.{file.kind}.{name}": value for file in result.weights for name, value in file.metrics.items()
        },
    }
    sweep.catalog.end_trial(trial.row.id, "complete", value=best, facts=facts, weights=kept)
    if not trial.row.is_extended:
        sweep.search.complete(event.number, best)
    sweep.ended_well = True
    rows = [
        WeightsRow(event.number, file.kind, path, value, file.metrics, file.epoch, file.bytes, file.sha256)
        for file, path, value in kept
    ]
    sweep.extendable = keep_resume_points(
        [*sweep.extendable, *rows], metric, sweep.study.storage.extendable, sweep.folder
    )
    sweep.progress.ended(event.number, "complete", best, None)


def _prune(sweep: _Sweep, event: Stopped) -> None:
    trial = sweep.running.pop(event.number)
    sweep.catalog.end_trial(trial.row.id, "pruned", value=trial.value)
    sweep.search.prune(event.number)
    sweep.folder.remove_resume_point(event.number)
    sweep.ended_well = True
    sweep.progress.ended(event.number, "pruned", trial.value, None)


def _fail(sweep: _Sweep, event: Failed) -> None:
    trial = sweep.running[event.number]
    if event.lost and trial.retries_left > 0:
        trial.retries_left -= 1
        sweep.workers.submit(trial.job)  # it goes on from its newest whole checkpoint
        return
    del sweep.running[event.number]
    reason = f"{event.reason} ({RETRIES + 1} times)" if event.lost else event.reason
    if trial.row.is_extended:
        _fail_extension(sweep, trial.row, reason)
        return
    facts = {"traceback": event.traceback} if event.traceback else {}
    sweep.catalog.end_trial(trial.row.id, "failed", reason=reason, facts=facts)
    sweep.search.fail(event.number, reason)
    sweep.folder.remove_resume_point(event.number)
    sweep.progress.ended(event.number, "failed", None, reason)
    sweep.failures.append(reason)
    alike = len(set(sweep.failures)) == 1 and not sweep.ended_well
    if alike and len(sweep.failures) >= min(HOPELESS_FAILURES, sweep.study.search.trials):
        raise StudyFailed(f"all trials so far ({len(sweep.failures)}) failed alike: {reason}")


def _fail_extension(sweep: _Sweep, row: TrialRow, reason: str) -> None:
    """The trial stays what it was: its weights are there, and its value holds."""
    reason = f"its extension failed: {reason}"
    sweep.catalog.drop_extension(row, reason)
    sweep.progress.ended(row.number, "complete", row.value, reason)
