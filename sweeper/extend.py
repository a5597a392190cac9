"""`sweeper extend`: more epochs for the best trials of a finished study, under their own numbers.

What is asked for is recorded in one transaction, and the study is unfinished from then on: however this ends,
`sweeper start` goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Literal

from rich.console import Console

from sweeper.carry_out import carry_out
from sweeper.catalog import Catalog, StudyRow, TrialRow
from sweeper.control import say
from sweeper.errors import StudyError, StudyFailed
from sweeper.lease import Lease
from sweeper.runner import TRAIN
from sweeper.settings import Settings
from sweeper.show import command, start_again
from sweeper.start import open_call
from sweeper.storage import best_trials
from sweeper.store.open import open_folder
from sweeper.study import load_study
from sweeper.study_folder import StudyFolder
from sweeper.view import counted
from trials.recipe import Extension


def extend(
    name: str,
    settings: Settings,
    console: Console,
    *,
    epochs: int,
    trials: int = 1,
    numbers: Sequence[int] = (),
    schedule: Literal["cosine", "constant"] = "cosine",
    lr: float = 0.1,
    in_process: bool = False,
    train: str = TRAIN,
) -> int:
    """Train complete trials of a finished study for more epochs and publish the winner anew; returns the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to show progress.
        epochs: how many to add.
        trials: how many of the best trials, by the leaderboard.
        numbers: which trials of the search, in place of the best.
        schedule: of the learning rate over the added epochs.
        lr: its top there, as a share of each trial's own top learning rate.
        in_process: train in this process, one trial at a time, without Ray.
        train: `module:function` that trains one recipe.

    Raises:
        StudyError: what is asked for makes no sense, the study is not finished, or a trial keeps nothing to go on from.
        StoreError: there is no such study; or the database or the disk fails.
        StudyHeld: another orchestrator runs it.
        StudyFailed: no extension worked; the study is what it was.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    _check(epochs, trials, lr)
    with (
        closing(Catalog(settings.database_url, create=False)) as catalog,
        Lease(catalog, name, partial(say, console)) as lease,
    ):
        row = catalog.study(name)
        if row.state != "finished":
            raise StudyError(
                f"study {name!r} is not finished, expected one that is; finish it with: "
                + command(settings, *start_again(row))
            )
        study = load_study(row.file, row.text)
        chosen = _chosen(catalog, row, trials, numbers)
        _check_resume_points(chosen, open_folder(settings, name), study.storage.extendable)
        _check_no_later_epochs(chosen, catalog)
        call = open_call(study, row, settings, catalog, console, in_process=in_process, train=train)
        call.say(plan(name, chosen, epochs, schedule, lr))
        catalog.extend_trials(row.id, {trial.id: _extended(trial, epochs, schedule, lr) for trial in chosen})
        code = carry_out(call, lease)
        if not code:
            _check_ends(catalog, chosen)
        return code


def plan(name: str, trials: Sequence[TrialRow], epochs: int, schedule: str, lr: float) -> str:
    """What is about to be done, in one line."""
    which = f"trial{'s' if len(trials) > 1 else ''} {', '.join(f'{trial.number:04d}' for trial in trials)}"
    length = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    share = f"{lr:g} of each trial's top learning rate"
    rate = f"cosine from {share} to 0" if schedule == "cosine" else f"constant at {share}"
    return f"extending {which} of study {name!r} by {length}: {rate} over {length}"


def _check(epochs: int, trials: int, lr: float) -> None:
    for option, number in (("--epochs", epochs), ("--trials", trials)):
        if number < 1:
            raise StudyError(f"{option}: found {number}, expected at least 1")
    if not 0 < lr <= 1:
        raise StudyError(
            f"--lr: found {lr:g}, expected more than 0 and at most 1: a share of each trial's top learning rate"
        )


def _chosen(catalog: Catalog, row: StudyRow, count: int, numbers: Sequence[int]) -> list[TrialRow]:
    """The trials named, or the best ``count``, best first."""
    # What finishing makes is made anew from what the search's trials have become.
    searched = [weights for weights in catalog.weights(row.id, of="complete") if weights.role == "search"]
    order = best_trials(searched, row.metric)
    for number in numbers:
        if number not in order:
            known = ", ".join(map(str, sorted(order)))
            raise StudyError(f"--trial: found {number}, expected a complete trial of study {row.name!r}: {known}")
    if not numbers and count > len(order):
        raise StudyError(
            f"--trials: found {count}, expected at most {len(order)}: so many trials of study {row.name!r} are complete"
        )
    by_number = {trial.number: trial for trial in catalog.trials(row.id)}
    return [by_number[number] for number in dict.fromkeys(numbers or order[:count])]


def _check_resume_points(trials: Sequence[TrialRow], folder: StudyFolder, extendable: int) -> None:
    from trials.checkpoint import TrialFolder

    for trial in trials:
        if not folder.has_resume_point(trial.number, trial.facts["epochs"]):
            raise StudyError(
                f"trial {trial.number:04d} cannot be extended: found no state after its epoch {trial.facts['epochs']}; "
                f"the study keeps that of its best {counted(extendable, 'trials')} (storage.extendable), unless "
                "storage.limit or a full disk took it, or an extension failed midway; name one that has it with --trial"
            )
        folder.bring(trial.number)
        damage = TrialFolder(folder.trial(trial.number)).examine_checkpoints()[0][1]
        if damage is not None:
            raise StudyError(
                f"trial {trial.number:04d} cannot be extended: {damage.path}: found it damaged ({damage.found}), "
                f"expected the state after its epoch {trial.facts['epochs']}; name another with --trial"
            )


def _check_no_later_epochs(trials: Sequence[TrialRow], catalog: Catalog) -> None:
    """An epoch is recorded once: where an extension failed midway, another would tell of the same epochs."""
    known = catalog.epochs(trials[0].study_id)
    for trial in trials:
        last, found = trial.facts["epochs"], max((epoch.epoch for epoch in known.get(trial.id, ())), default=0)
        if found > last:
            raise StudyError(
                f"trial {trial.number:04d} cannot be extended: an extension has failed midway, and its epochs after "
                f"{last} are recorded, up to {found}"
            )


def _extended(trial: TrialRow, epochs: int, schedule: Literal["cosine", "constant"], lr: float) -> dict[str, object]:
    """The trial's recipe with one more extension."""
    extension = Extension(after_epochs=trial.facts["epochs"], epochs=epochs, schedule=schedule, lr=lr)
    return {**trial.recipe, "extensions": [*trial.recipe["extensions"], extension.model_dump(mode="json")]}


def _check_ends(catalog: Catalog, trials: Sequence[TrialRow]) -> None:
    """Raise StudyFailed if none of the extensions ran to its end."""
    ends = [catalog.trial(trial.study_id, trial.number) for trial in trials]
    failed = [end for end, trial in zip(ends, trials, strict=True) if end.recipe == trial.recipe]
    if len(failed) == len(trials):
        reasons = "; ".join(dict.fromkeys(f"{end.reason}" for end in failed))
        raise StudyFailed(f"no extension ran to its end, and the trials are what they were: {reasons}")
