"""`run_study`: the loop that asks, dispatches, reports and tells until the study is done.

Every end is written in one order: the catalog, the search, then files. A kill between any two leaves the catalog ahead,
and the next run tells the search what it missed; what is left of the files goes with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sweeper.catalog import Catalog, EpochRow, Request, StudyRow, TrialRow, WeightsRow
from sweeper.dispatch import Workers
from sweeper.errors import NoRoom, StoreError, WorkersError
from sweeper.faults import INFEASIBLE, fail, look_for_stalled, lose_all
from sweeper.finish.moves import next_moves, release, rooted
from sweeper.interrupt import undisturbed
from sweeper.runner import Completed, Event, Failed, Interrupted, Reported, Stopped
from sweeper.search import Proposal, Search
from sweeper.storage import collect, keep_resume_points
from sweeper.study import Study
from sweeper.study_folder import StudyFolder
from sweeper.sweep import Progress, Sweep
from trials.recipe import Recipe

POLL_SECONDS = 1.0
LOOK_SECONDS = 1.0
"""How often all that runs is looked through for stalled trials, and the catalog for what another terminal wants."""
SAVING_SECONDS = 8.0
"""How long trials may take to save their state when the study is stopped."""


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
) -> Request | None:
    """Run the trials and extensions that are missing; on return each trial is complete, pruned or failed.

    Unless another terminal asks to stop or to pause: then all that ran has been saved and waits, and what was asked is
    returned. On ctrl-C it is the same, and `KeyboardInterrupt` goes on.

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
        NoRoom: the disk is full, and nothing more can be removed from it.
        StoreError: the database cannot be written; where it is only away for a while, what ran has been saved.
        WorkersError: the workers are gone; what ran counts as lost.
    """
    folder.write(folder.study_file.name, study.text.encode())
    known = {trial.number: trial for trial in catalog.trials(row.id)}
    complete = catalog.weights(row.id, of="complete")
    extendable = keep_resume_points(complete, row.metric, study.storage.extendable, folder)
    sweep = Sweep(study, row, search, workers, catalog, progress, folder, import_paths, known, extendable)
    sweep.ended_well = any(trial.state in ("complete", "pruned") for trial in known.values())
    sweep.waiting = [*_extended(sweep), *_interrupted(sweep)]
    try:
        request = _loop(sweep)
        if request is not None:
            _put_away(sweep)
        return request
    except (KeyboardInterrupt, NoRoom):
        try:
            _put_away(sweep)
        except StoreError as error:
            if not error.transient:
                raise
            # The study has been told to stop: it does not wait for the database, to go on then.
            with suppress(WorkersError):
                _save_unrecorded(sweep)
        raise
    except StoreError as error:
        if error.transient:
            _save_unrecorded(sweep)
        raise
    except WorkersError as error:
        lose_all(sweep, str(error))
        raise


def _loop(sweep: Sweep) -> Request | None:
    """Until nothing is left to do, or until another terminal asks for something."""
    look_at = time.monotonic()
    while True:
        release(sweep)
        # A trial that waits for its trunk holds its place: what would be asked for beside it would know no more.
        has_room = sweep.workers.free > len(sweep.blocked) and _has_more(sweep)
        if not (sweep.running or sweep.blocked or _has_more(sweep)):
            with undisturbed():
                sweep.waiting = [*next_moves(sweep)]
            if not sweep.waiting:
                return None
            continue
        # Whoever waits for an answer goes first: to propose a trial may take a hundred times as long.
        event = sweep.workers.wait(0.0 if has_room else POLL_SECONDS)
        with undisturbed():
            if event is not None:
                _handle(sweep, event)
            elif has_room:
                _begin(sweep, sweep.waiting.pop(0) if sweep.waiting else sweep.search.ask())
        if news := sweep.workers.news():
            sweep.progress.note(news)
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_SECONDS
            with undisturbed():
                look_for_stalled(sweep)
            request = sweep.catalog.study(sweep.row.name).request
            if request is not None:
                return request
        sweep.progress.tick()


def _has_more(sweep: Sweep) -> bool:
    return bool(sweep.waiting) or sweep.search.asked < sweep.study.search.trials


def _put_away(sweep: Sweep) -> None:
    """Let what runs save its state, for a while; what is told meanwhile is recorded as ever."""
    sweep.stopping = True
    with suppress(WorkersError):  # stopped along with this process: what ran goes on from its newest checkpoint
        for event in _last_events(sweep):
            _handle(sweep, event)
    for number in list(sweep.running):
        sweep.wait_again(number)


def _save_unrecorded(sweep: Sweep) -> None:
    """Let what runs save its state, while nothing can be recorded: all is told again when it goes on."""
    for event in _last_events(sweep):
        # A report too is left without an answer: finished, a trial would not tell of its last epoch again.
        sweep.running.pop(event.number, None)


def _last_events(sweep: Sweep) -> Iterator[Event]:
    """What trials that are told to save their state say until they have, or until the time is up."""
    sweep.progress.note("saving what runs")
    sweep.workers.interrupt()
    until = time.monotonic() + SAVING_SECONDS
    while sweep.running and (left := until - time.monotonic()) > 0:
        event = sweep.workers.wait(min(left, POLL_SECONDS))
        if event is not None:
            yield event
        sweep.progress.tick()


def _extended(sweep: Sweep) -> list[TrialRow]:
    """Trials that the search knows as complete and that have epochs to add, and those that it did not ask for."""
    return [trial for trial in sweep.known.values() if not trial.tells_search and trial.state in ("running", "waiting")]


def _interrupted(sweep: Sweep) -> list[Proposal]:
    """Trials that a dead orchestrator left open, to be continued; what it had recorded is told to the search."""
    waiting = []
    epochs = sweep.catalog.epochs(sweep.row.id)
    for number in sweep.search.running():
        proposal = sweep.search.reopen(number)
        row = sweep.known.get(number)
        if row is not None:
            told = epochs.get(row.id, [])
            _tell_epochs(sweep, number, told)
            # One that is trained again after a failure has told of epochs from which nothing is left.
            if told and sweep.folder.has_resume_point(number, told[-1].epoch):
                sweep.known_epochs[number] = told[-1].epoch
        if row is None or row.state in ("running", "waiting"):
            waiting.append(proposal)
        elif row.state == "complete" and row.value is not None:
            sweep.search.complete(number, row.value)
        elif row.state == "pruned":
            sweep.search.prune(number)
        else:
            sweep.search.fail(number, row.reason or "failed", infeasible=row.failure in INFEASIBLE)
    return waiting


def _tell_epochs(sweep: Sweep, number: int, epochs: list[EpochRow]) -> None:
    for epoch in epochs:
        sweep.search.report(number, epoch.epoch, epoch.metrics[sweep.study.search.metric])


def _begin(sweep: Sweep, proposed: Proposal | TrialRow) -> None:
    ready = proposed if isinstance(proposed, TrialRow) else rooted(sweep, proposed)
    if ready is None:
        return
    row = _running_row(sweep, ready)
    sweep.submit(row)
    recipe = Recipe.model_validate(row.recipe)
    is_extended = bool(recipe.extensions) and row.role == "search"
    extended_after = recipe.extensions[-1].after_epochs if is_extended else 0
    after_epochs = max(extended_after, sweep.known_epochs.get(row.number, 0))
    epochs = recipe.epochs if recipe.assembly is None else 0
    sweep.progress.started(row.number, row.params, epochs, after_epochs)


def _running_row(sweep: Sweep, ready: Proposal | TrialRow) -> TrialRow:
    """The trial's row in the catalog, which says from now on that it runs."""
    if isinstance(ready, Proposal) and ready.number not in sweep.known:
        recipe = json.loads(ready.recipe.model_dump_json())
        return sweep.catalog.add_trial(sweep.row.id, ready.number, params=ready.params, recipe=recipe)
    row = ready if isinstance(ready, TrialRow) else sweep.known[ready.number]
    changed: dict[str, Any] = {}
    if isinstance(ready, Proposal) and ready.recipe.start is not None:
        # It had failed with its trunk, and is retried.
        changed = {"recipe": json.loads(ready.recipe.model_dump_json()), "described": False}
    sweep.catalog.set_trial(row.id, state="running", **changed)
    return replace(row, **changed)


def _handle(sweep: Sweep, event: Event) -> None:
    sweep.running[event.number].heard_at = time.monotonic()
    match event:
        case Reported():
            _report(sweep, event)
        case Completed():
            _complete(sweep, event)
        case Stopped():
            _prune(sweep, event)
        case Interrupted():
            sweep.wait_again(event.number)
        case Failed():
            fail(sweep, event)
    if isinstance(event, Completed | Stopped | Failed):
        _keep_to_the_limit(sweep)


def _keep_to_the_limit(sweep: Sweep) -> None:
    freed = collect(sweep.catalog, sweep.row, sweep.study.storage, sweep.folder, finish=sweep.study.finish)
    if freed.line is not None and not sweep.told_of_limit:
        sweep.told_of_limit = True
        sweep.progress.note(freed.line)


def _report(sweep: Sweep, event: Reported) -> None:
    trial, report = sweep.running[event.number], event.report
    trial.value = report.metrics[sweep.study.search.metric]
    # Recorded before the trial may go on: what a checkpoint holds is then never unknown to the catalog for long.
    sweep.catalog.add_epoch(trial.row.id, report)
    promising = not trial.row.tells_search or sweep.search.report(event.number, report.epoch, trial.value)
    # After the last epoch nothing is left to save by pruning.
    sweep.workers.answer(event.number, promising or report.epoch >= report.epochs)
    sweep.progress.reported(event.number, report)


def _complete(sweep: Sweep, event: Completed) -> None:
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
        **({"shares": list(result.shares)} if result.shares else {}),
        # Found by a range test, it is not the recipe's: an extension falls from a share of it.
        **({"lr": result.lr} if trial.row.recipe["train"]["lr_finder"] is not None else {}),
        "notes": "; ".join(result.notes),
        "weights": {
            f"weights.{file.kind}.{name}": value for file in result.weights for name, value in file.metrics.items()
        },
    }
    sweep.catalog.end_trial(trial.row.id, "complete", value=best, facts=facts, weights=kept)
    if trial.row.tells_search:
        sweep.search.complete(event.number, best)
    sweep.ended_well = True
    rows = [
        WeightsRow(event.number, file.kind, path, value, file.metrics, file.epoch, file.bytes, file.sha256)
        for file, path, value in kept
    ]
    if trial.row.role == "search":
        sweep.extendable = keep_resume_points(
            [*sweep.extendable, *rows], metric, sweep.study.storage.extendable, sweep.folder
        )
    else:
        sweep.folder.remove_resume_point(event.number)
    sweep.progress.ended(event.number, "complete", best, None)


def _prune(sweep: Sweep, event: Stopped) -> None:
    trial = sweep.running.pop(event.number)
    sweep.catalog.end_trial(trial.row.id, "pruned", value=trial.value)
    sweep.search.prune(event.number)
    sweep.folder.remove_resume_point(event.number)
    sweep.ended_well = True
    sweep.progress.ended(event.number, "pruned", trial.value, None)
