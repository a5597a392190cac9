"""`sweeper retry`: failed trials of a study, once more, under their own numbers.

That they wait again is recorded in one transaction, with a history in which the search has them open; the study is
unfinished from then on: however this ends, `sweeper start` goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from rich.console import Console

from sweeper.carry_out import carry_out
from sweeper.catalog import Catalog, StudyRow, TrialRow
from sweeper.control import say
from sweeper.errors import StudyError
from sweeper.history import write_anew
from sweeper.lease import Lease
from sweeper.runner import TRAIN
from sweeper.settings import Settings
from sweeper.start import load_started, open_call


def retry(
    name: str,
    settings: Settings,
    console: Console,
    *,
    numbers: Sequence[int] = (),
    in_process: bool = False,
    train: str = TRAIN,
) -> int:
    """Train failed trials of a study again, finish it and publish the winner anew; returns the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to show progress.
        numbers: which trials; all that failed if none is named.
        in_process: train in this process, one trial at a time, without Ray.
        train: `module:function` that trains one recipe.

    Raises:
        StudyError: a trial that is named did not fail.
        StoreError: there is no such study; or the database or the disk fails.
        StudyHeld: another orchestrator runs it.
        StudyFailed: no trial of the study works.
        NoRoom: the disk is full; the study is paused.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    with (
        closing(Catalog(settings.database_url, create=False)) as catalog,
        Lease(catalog, name, partial(say, console)) as lease,
    ):
        row = catalog.study(name)
        trials = catalog.trials(row.id)
        chosen = _chosen(row, trials, numbers)
        study = load_started(row, settings)
        call = open_call(study, row, settings, catalog, console, in_process=in_process, train=train)
        if not chosen:
            call.say(f"study {name!r} has no failed trial; nothing to retry")
            return 0
        call.say(plan(name, chosen))
        again = {trial.number: replace(trial, state="waiting", failure=None, reason=None) for trial in chosen}
        history = write_anew(catalog, row, study, [again.get(trial.number, trial) for trial in trials])
        catalog.go_on(row.id, retried=chosen, history=history)
        return carry_out(call, lease)


def plan(name: str, trials: Sequence[TrialRow]) -> str:
    """What is about to be done, in one line."""
    listed = ", ".join(f"{trial.number:04d}" for trial in trials)
    return f"retrying trial{'s' if len(trials) > 1 else ''} {listed} of study {name!r}"


def _chosen(row: StudyRow, trials: Sequence[TrialRow], numbers: Sequence[int]) -> list[TrialRow]:
    """The trials named, or all that failed, by number; those that failed with their trunk along with that."""
    failed = {trial.number: trial for trial in trials if trial.state == "failed"}
    for number in numbers:
        if number not in failed:
            known = ", ".join(map(str, failed)) or "none has failed"
            raise StudyError(f"trial: found {number}, expected a failed trial of study {row.name!r}: {known}")
    return [
        trial
        for number, trial in failed.items()
        if not numbers or number in numbers or (trial.role == "trunk" and trial.params["of"] in numbers)
    ]
