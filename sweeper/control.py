"""`sweeper stop`, `pause` and `resume`: what another terminal, or another machine, asks of a study.

What is asked is written beside the study in the catalog, which its orchestrator reads about once a second; what comes
of it is read there too. Nothing is sent to the process itself, which may be anywhere. A request that nobody has read is
void: the next orchestrator clears it when it takes the study.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, nullcontext

from rich.console import Console

from sweeper.catalog import Catalog, StudyRow
from sweeper.lease import is_held
from sweeper.settings import Settings
from sweeper.show import command, start_again, state_of

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.5


def stop(name: str, settings: Settings, console: Console, *, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Stop a study as ctrl-C in its own terminal would; returns once nothing of it runs, with the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to say what comes of it.
        patience_seconds: how long to wait for it; what was asked for stays asked for.

    Raises:
        StoreError: there is no such study, or the database cannot be used.
    """
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        study = catalog.study(name)
        if not is_held(study):
            say(console, f"study {name!r} does not run{_onward(study, settings)}")
            return 0
        catalog.set_study(study.id, request="stop")
        if not _wait(catalog, name, console, "stop", lambda row: not is_held(row), patience_seconds):
            return _still_waiting(catalog, name, "stop", settings, console, patience_seconds)
        say(console, f"study {name!r} stopped{_onward(catalog.study(name), settings)}")
        return 0


def pause(name: str, settings: Settings, console: Console, *, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Have a study save what it trains and give its workers back; returns once it has, with the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to say what comes of it.
        patience_seconds: how long to wait for it; what was asked for stays asked for.

    Raises:
        StoreError: there is no such study, or the database cannot be used.
    """
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        study = catalog.study(name)
        if not is_held(study):
            say(console, f"study {name!r} does not run{_onward(study, settings)}")
            return 0
        if study.request == "stop":
            say(console, f"study {name!r} is being stopped; nothing to pause")
            return 0
        catalog.set_study(study.id, request="pause")
        if not _wait(catalog, name, console, "pause", _is_idle, patience_seconds):
            return _still_waiting(catalog, name, "pause", settings, console, patience_seconds)
        study = catalog.study(name)
        if study.state == "paused":
            say(console, f"study {name!r} is paused, its workers are free; go on: {command(settings, 'resume', name)}")
        else:
            say(console, f"study {name!r} ended before it could be paused{_onward(study, settings)}")
        return 0


def resume(
    name: str,
    settings: Settings,
    console: Console,
    go_on: Callable[[StudyRow], int],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> int:
    """Let a paused study go on where it waits; one that nobody runs goes on here. Returns the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to say what comes of it.
        go_on: runs the study, as `sweeper start` does.
        patience_seconds: how long to wait for a paused study to go on.

    Raises:
        StoreError: there is no such study, or the database cannot be used.
    """
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        study = catalog.study(name)
        if study.state == "finished":
            say(console, f"study {name!r} is finished; nothing to resume")
            return 0
        if is_held(study):
            if study.request == "stop":
                say(console, f"study {name!r} is being stopped; go on with it afterwards")
                return 1
            if study.state != "paused" and study.request != "pause":
                say(console, f"study {name!r} runs already")
                return 0
            catalog.set_study(study.id, request=None)
            if not _wait(catalog, name, console, "go on", lambda row: row.state != "paused", patience_seconds):
                return _still_waiting(catalog, name, "resume", settings, console, patience_seconds)
            if is_held(catalog.study(name)):
                say(console, f"study {name!r} goes on where it was started")
                return 0
    where = "it goes on here" if study.job is None else f"it was Ray job {study.job}"
    say(console, f"nobody runs study {name!r}; {where}")
    return go_on(study)


def _wait(
    catalog: Catalog,
    name: str,
    console: Console,
    what: str,
    is_so: Callable[[StudyRow], bool],
    patience_seconds: float,
) -> bool:
    """Wait until it is so, under a line that says what for if it is not; ``False`` if it takes longer than that."""
    if is_so(catalog.study(name)):
        return True
    until = time.monotonic() + patience_seconds
    holder = catalog.study(name).owner_host
    progress = f"waiting for study {name!r} on {holder} to {what}"
    if not console.is_terminal:
        say(console, progress)
    with console.status(progress) if console.is_terminal else nullcontext():
        while not is_so(catalog.study(name)):
            if time.monotonic() >= until:
                return False
            time.sleep(min(LOOK_SECONDS, patience_seconds))
    return True


def _is_idle(study: StudyRow) -> bool:
    return study.state == "paused" or not is_held(study)


def _still_waiting(
    catalog: Catalog, name: str, what: str, settings: Settings, console: Console, patience_seconds: float
) -> int:
    study = catalog.study(name)
    say(
        console,
        f"study {name!r} was asked to {what} and has not yet, after {patience_seconds:.0f} s: process "
        f"{study.owner_pid} on {study.owner_host} still has it ({state_of(study)}); it stays asked, look again with: "
        + command(settings, "show", name),
    )
    return 1


def _onward(study: StudyRow, settings: Settings) -> str:
    """How its state is gone on from, as the end of a line."""
    match study.state:
        case "finished":
            return "; it is finished"
        case "paused":
            return f"; it is paused, go on with: {command(settings, 'resume', study.name)}"
        case _:
            return f"; go on with: {command(settings, *start_again(study))}"


def say(console: Console, line: str) -> None:
    """Print one line as it is, never wrapped: one that names a command must still be one when it is copied."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
