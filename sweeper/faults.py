"""What becomes of a trial that failed: whether it goes on, and what is told if it does not.

A fault of the worker is none of the trial, which goes on as often as `workers.retries` allows; too little memory is met
with a smaller micro-batch, by which the result does not change; a full disk with whatever may be removed. What is left
are faults of the recipe, of which the search is told, and all others.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from sweeper.catalog import Failure, TrialRow
from sweeper.errors import NoRoom, StudyFailed
from sweeper.runner import Failed
from sweeper.storage import collect
from sweeper.sweep import Running, Sweep
from sweeper.view import attempt_line, was_continued
from trials.errors import NoSpace
from trials.fit.micro_batch import smaller_micro_batch
from trials.recipe import Recipe

INFEASIBLE: tuple[Failure, ...] = ("diverged", "infeasible")
"""Failures that are the recipe's own: the sampler learns from them where not to look."""
HOPELESS_FAILURES = 3
"""A study whose first trials all fail for one reason is stopped after this many."""
UNPLACED_SECONDS = 30.0
"""How long a trial may be without a worker before a person is told."""
STALLS = 1
"""How often a trial that says nothing is continued before it counts as failed."""


def fail(sweep: Sweep, event: Failed) -> None:
    """Continue a trial that failed, or record its end.

    Raises:
        StudyFailed: the first trials all failed for the same reason.
        NoRoom: the disk is full, and nothing more can be removed from it.
        StoreError: the catalog or the search's history cannot be written.
        WorkersError: the workers are gone.
    """
    trial = sweep.running[event.number]
    match event.kind:
        case "lost" if sweep.stopping:
            # A worker that ends now was stopped along with this process: it costs none of the retries.
            sweep.wait_again(event.number)
        case "lost":
            _lose(sweep, trial, event.reason)
        case "out_of_memory":
            _shrink(sweep, trial, event)
        case "no_space":
            _make_room(sweep, trial, event)
        case "raised" | "diverged":
            _end(sweep, trial, event.kind, event.reason, event.traceback)


def look_for_stalled(sweep: Sweep) -> None:
    """Kill the workers of trials that have said nothing for `workers.stall_minutes`; once each goes on.

    A trial that waits for a worker is none of them; a person is told of it. Nor is a soup or an ensemble in the
    making, which has nothing to report until it is done.

    Raises:
        StudyFailed, StoreError, WorkersError: as `fail`.
    """
    now = time.monotonic()
    # Without a worker a trial cannot say anything: a node died, or Ray gave its place to somebody else.
    for number in sweep.workers.unplaced(0.0):
        sweep.running[number].heard_at = now
    for number in set(sweep.workers.unplaced(UNPLACED_SECONDS)) - sweep.told_unplaced:
        sweep.told_unplaced.add(number)
        sweep.progress.note(f"trial {number} waits for a worker, for which Ray has not found room yet")
    minutes = sweep.study.workers.stall_minutes
    if minutes is None:
        return
    for number, trial in list(sweep.running.items()):
        if now - trial.heard_at < minutes * 60 or trial.row.recipe.get("assembly") is not None:
            continue
        sweep.workers.kill(number)
        reason = f"no report for {minutes:g} minute{'' if minutes == 1 else 's'} (workers.stall_minutes)"
        if _count(trial.row, "stalled") < STALLS:
            _go_on(sweep, trial, "stalled", reason)
        else:
            _end(sweep, trial, "stalled", f"{reason}, {STALLS + 1} times")


def lose_all(sweep: Sweep, reason: str) -> None:
    """Record that all that ran was lost, and waits or has failed; what had no worker yet has lost nothing.

    Raises:
        StudyFailed, StoreError: as `fail`.
    """
    sweep.stopping = True
    for number in sweep.workers.unplaced(0.0):
        sweep.wait_again(number)
    for trial in list(sweep.running.values()):
        _lose(sweep, trial, reason)


def _lose(sweep: Sweep, trial: Running, reason: str) -> None:
    times = _count(trial.row, "lost")
    if times < sweep.study.workers.retries:
        _go_on(sweep, trial, "lost", reason)
    else:
        _end(sweep, trial, "lost", f"{reason} ({times + 1} times)" if times else reason)


def _shrink(sweep: Sweep, trial: Running, event: Failed) -> None:
    smaller = smaller_micro_batch(Recipe.model_validate(trial.row.recipe), sweep.study.workers.processes)
    if smaller is None:
        reason = f"{event.reason}; not even one example at a time fits"
        _end(sweep, trial, "infeasible", reason, event.traceback)
        return
    recipe = {**trial.row.recipe, "train": {**trial.row.recipe["train"], "micro_batch": smaller}}
    reason = f"micro_batch {smaller} after out of memory"
    # In one write with the attempt: a restart goes on with the smaller one.
    _go_on(sweep, trial, "out_of_memory", reason, recipe=recipe, files_delivered=False)


def _make_room(sweep: Sweep, trial: Running, event: Failed) -> None:
    """The trial goes on where something could be removed; else nothing can go on."""
    sweep.wait_again(event.number)
    if sweep.stopping:
        return
    freed_bytes = sweep.folder.remove_copies(but=sweep.running.keys() | {event.number}) or _collect_all(sweep)
    if freed_bytes <= 0:
        where = event.reason.removeprefix(f"{NoSpace.__name__}: ").partition(";")[0]  # what to do is said with the rest
        raise NoRoom(f"trial {event.number:04d}: {where}")
    sweep.progress.continued(
        event.number, f"the disk was full; {freed_bytes / 1e6:.1f} MB were made free", counted=False
    )
    sweep.waiting.insert(0, trial.row)


def _collect_all(sweep: Sweep) -> int:
    """Remove all that is not needed, whatever the limit; the bytes."""
    return collect(
        sweep.catalog, sweep.row, sweep.study.storage, sweep.folder, finish=sweep.study.finish, out_of_space=True
    ).bytes


def _count(row: TrialRow, kind: str) -> int:
    """How often a fault of that kind has interrupted the trial since it last ended, or was retried, if ever."""
    count = 0
    for attempt in row.attempts:
        if attempt["kind"] == "retry":
            count = 0  # by the order: the clock may have jumped since
        elif attempt["kind"] == kind and attempt["at"] > (row.ended_at or 0.0):
            count += 1
    return count


def _go_on(sweep: Sweep, trial: Running, kind: str, reason: str, **changed: Any) -> None:
    attempt = {"at": time.time(), "kind": kind, "reason": reason}
    changed["attempts"] = [*trial.row.attempts, attempt]
    row = replace(trial.row, **changed)
    del sweep.running[row.number]
    # Recorded before it goes on, so that a restart of this process does not forget how often it did.
    sweep.catalog.set_trial(row.id, **changed, **({"state": "waiting"} if sweep.stopping else {}))
    sweep.progress.continued(row.number, attempt_line(attempt), counted=was_continued([attempt]))
    if not sweep.stopping:
        sweep.submit(row)


def _end(sweep: Sweep, trial: Running, failure: Failure, reason: str, traceback: str = "") -> None:
    row = trial.row
    del sweep.running[row.number]
    if row.is_extended and row.role == "search":
        # The trial stays what it was: its weights are there, and its value holds.
        reason = f"its extension failed: {reason}"
        sweep.catalog.drop_extension(row, reason)
        sweep.progress.ended(row.number, "complete", row.value, reason)
        return
    facts = {"traceback": traceback} if traceback else {}
    sweep.catalog.end_trial(row.id, "failed", reason=reason, failure=failure, facts=facts)
    if row.tells_search:
        sweep.search.fail(row.number, reason, infeasible=failure in INFEASIBLE)
    sweep.folder.remove_resume_point(row.number)
    sweep.progress.ended(row.number, "failed", None, reason)
    # A trunk is trained by the recipe of the first trial that needs it.
    if failure not in INFEASIBLE and row.role in ("search", "trunk"):
        _stop_if_hopeless(sweep, reason)


def _stop_if_hopeless(sweep: Sweep, reason: str) -> None:
    sweep.failures.append(reason)
    alike = len(set(sweep.failures)) == 1 and not sweep.ended_well
    if alike and len(sweep.failures) >= min(HOPELESS_FAILURES, sweep.study.search.trials) and not sweep.stopping:
        raise StudyFailed(f"all trials so far ({len(sweep.failures)}) failed alike: {reason}")
