"""`sweeper extend` for a study: more trials, or a new version of its file with more trials and wider ranges.

What is asked for is recorded in one transaction, and the study is unfinished from then on: however this ends,
`sweeper start` goes on with it. The trials there are keep their numbers, and what the search knows of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from rich.console import Console

from sweeper.carry_out import carry_out
from sweeper.catalog import Catalog, StudyRow
from sweeper.control import say
from sweeper.errors import StudyError
from sweeper.history import write_anew
from sweeper.lease import Lease
from sweeper.positions import Path as At
from sweeper.positions import dotted, show
from sweeper.runner import TRAIN
from sweeper.settings import Settings
from sweeper.show import command
from sweeper.space import Choice, Distribution, Int, Label, Log, Tree, Uniform
from sweeper.start import load_started, open_call, said, with_models
from sweeper.study import Study, load_study
from sweeper.view import counted

WHY = ": otherwise what its trials have shown would not fit"


def add_trials(
    name: str,
    settings: Settings,
    console: Console,
    *,
    trials: int,
    in_process: bool = False,
    train: str = TRAIN,
) -> int:
    """Let a study that is finished or stopped try ``trials`` more, and carry it out; returns the exit code.

    Raises:
        StudyError: ``trials`` is less than 1, or the study failed.
        StoreError: there is no such study; or the database or the disk fails.
        StudyHeld: another orchestrator runs it.
        StudyFailed: no trial of the study works.
        NoRoom: the disk is full; the study is paused.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    if trials < 1:
        raise StudyError(f"--trials: found {trials}, expected at least 1")
    with (
        closing(Catalog(settings.database_url, create=False)) as catalog,
        Lease(catalog, name, partial(say, console)) as lease,
    ):
        row = _alive(catalog.study(name), settings)
        study = load_started(row, settings)
        catalog.go_on(row.id, trials_asked=row.trials_asked + trials)
        row = catalog.study(name)
        call = open_call(study, row, settings, catalog, console, in_process=in_process, train=train)
        call.say(f"adding {counted(trials, 'trials')} to study {name!r}: {row.trials_asked} in all")
        return carry_out(call, lease)


def widen(
    name: str,
    settings: Settings,
    console: Console,
    *,
    file: Path,
    in_process: bool = False,
    train: str = TRAIN,
) -> int:
    """Let a study that is finished or stopped go on as ``file`` says it, and carry it out; returns the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to show progress.
        file: a study file that differs from the study's own by more trials and wider ranges alone.
        in_process: train in this process, one trial at a time, without Ray.
        train: `module:function` that trains one recipe.

    Raises:
        StudyError: the file is wrong, or differs in another way, one line for each; or the study failed.
        StoreError: there is no such study; or the database or the disk fails.
        StudyHeld: another orchestrator runs it.
        StudyFailed: no trial of the study works.
        NoRoom: the disk is full; the study is paused.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    new = load_study(file)
    with (
        closing(Catalog(settings.database_url, create=False)) as catalog,
        Lease(catalog, name, partial(say, console)) as lease,
    ):
        row = _alive(catalog.study(name), settings)
        check_wider(load_study(row.file, row.text), new, row)
        new = with_models(new, settings)
        history = write_anew(catalog, row, new, catalog.trials(row.id))
        catalog.go_on(row.id, history=history, **said(new))
        before, row = row, catalog.study(name)
        call = open_call(new, row, settings, catalog, console, in_process=in_process, train=train)
        more = row.trials_asked - before.trials_asked
        call.say(f"study {name!r} goes on as {file} says: {counted(more, 'more trials')}, {row.trials_asked} in all")
        return carry_out(call, lease)


def check_wider(old: Study, new: Study, row: StudyRow) -> None:
    """Raise StudyError where ``new`` is not just ``old`` with more trials and wider ranges, a line for each offence."""
    faults = [*_other_faults(old, new), *_tree_faults(old.space.sections, new.space.sections, ())]
    if new.search.trials < row.trials_asked:
        faults.append(
            f"search.trials: found {new.search.trials}, expected at least {row.trials_asked}: so many the study has"
        )
    elif row.state == "finished" and new.search.trials == row.trials_asked:
        faults.append(
            f"search.trials: found {new.search.trials}, expected more: the study is finished, and only another trial "
            "can try what is new"
        )
    if faults:
        raise StudyError("\n".join(f"{new.path}: {fault}" for fault in faults))


def _alive(row: StudyRow, settings: Settings) -> StudyRow:
    if row.state == "failed":
        again = command(settings, "retry", row.name)
        raise StudyError(f"study {row.name!r} failed, expected one that works; train what failed again with: {again}")
    return row


def _other_faults(old: Study, new: Study) -> Iterator[str]:
    kept = [("study", old.name, new.name), ("seed", old.seed, new.seed)]
    before, now = old.search.model_dump(), new.search.model_dump()
    kept += [(f"search.{key}", before[key], now[key]) for key in before if key != "trials"]
    for key, was, found in kept:
        if was != found:
            yield f"{key}: found {show(found)}, expected {show(was)}, as the study has it{WHY}"


def _tree_faults(old: Tree, new: Tree, at: At) -> Iterator[str]:
    """What in ``new`` could not have been drawn where ``old`` was, and is no wider range."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in new:
                yield _fault((*at, key), "nothing", _written(old[key]))
            elif key not in old:
                yield _fault((*at, key), _written(new[key]), "nothing")
            else:
                yield from _tree_faults(old[key], new[key], (*at, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from _tree_faults(before, now, (*at, index))
    elif isinstance(old, Choice) and isinstance(new, Choice):
        yield from _choice_faults(old, new, at)
    elif isinstance(old, Distribution) and isinstance(new, Distribution):
        if not _holds(new, old):
            yield _fault(at, _written(new), f"a range of its kind that holds all of {_written(old)}")
    elif type(old) is not type(new) or old != new:
        yield _fault(at, _written(new), _written(old))


def _choice_faults(old: Choice, new: Choice, at: At) -> Iterator[str]:
    """Options may be added anywhere; the old ones stay, in their order and with their labels."""
    places = [_place(label, new.labels) for label in old.labels]
    for label, place in zip(old.labels, places, strict=True):
        if place is None:
            yield _fault((*at, "choice"), _written(new), f"the option {show(label)} among them")
    found = [place for place in places if place is not None]
    if found != sorted(found):
        yield _fault((*at, "choice"), _written(new), f"the old options in their order: {_written(old)}")
    for option, place in zip(old.options, places, strict=True):
        if place is not None:
            yield from _tree_faults(option, new.options[place], (*at, "choice", place))


def _place(label: Label, labels: tuple[Label, ...]) -> int | None:
    return next((i for i, other in enumerate(labels) if type(other) is type(label) and other == label), None)


def _holds(new: Distribution, old: Distribution) -> bool:
    """Whether ``new`` has every value of ``old``, drawn in the same way."""
    match old, new:
        case (Uniform(low, high), Uniform(lower, higher)) | (Log(low, high), Log(lower, higher)):
            return lower <= low and high <= higher
        case Int(), Int():
            return new.log == old.log and new.holds(old.low) and new.holds(old.high) and old.step % new.step == 0
    return False


def _written(tree: Tree) -> str:
    """The tree on one line, as it would stand in the file."""
    return show(_plain(tree))


def _plain(tree: Tree) -> object:
    match tree:
        case dict():
            return {key: _plain(item) for key, item in tree.items()}
        case list():
            return [_plain(item) for item in tree]
        case Choice():
            return {"choice": list(tree.labels)}
        case Int(low, high, step, log):
            return {"int": [low, high], **({"step": step} if step != 1 else {}), **({"log": True} if log else {})}
        case Uniform(low, high) | Log(low, high):
            return {type(tree).__name__.lower(): [low, high]}
    return tree


def _fault(at: At, found: str, expected: str) -> str:
    return f"{dotted(at)}: found {found}, expected {expected}{WHY}"
