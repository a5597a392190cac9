"""`sweeper sync`: what MLflow was away for, delivered after the fact."""

from __future__ import annotations

from contextlib import closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from sweeper.catalog import Catalog
from sweeper.control import say
from sweeper.errors import StudyHeld, TrackingError
from sweeper.hand_over import deliver_results, draw_curve
from sweeper.lease import Lease, is_held
from sweeper.runner import TRAIN
from sweeper.settings import Settings, without_password
from sweeper.show import command
from sweeper.start import open_call
from sweeper.study import load_study
from sweeper.tracking import Delivered

if TYPE_CHECKING:
    from sweeper.carry_out import Call


def sync(name: str, settings: Settings, console: Console) -> int:
    """Deliver to MLflow what it is owed of a study that does not run, and say what that was; returns the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to say what was delivered.

    Raises:
        StudyHeld: the study runs, and so delivers by itself.
        TrackingError: MLflow, or the place of its files, cannot be reached; what it is owed stays owed.
        StoreError: there is no such study, or the database cannot be used.
    """
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        study = catalog.study(name)
        if is_held(study):
            raise StudyHeld(
                f"study {name!r} is run by process {study.owner_pid} on {study.owner_host}, which delivers by itself; "
                f"watch it with: {command(settings, 'show', name)}"
            )
        with Lease(catalog, name, partial(say, console)):
            row = catalog.study(name)
            described = load_study(row.file, row.text)
            call = open_call(described, row, settings, catalog, console, in_process=True, train=TRAIN)
            where = f"MLflow at {without_password(settings.tracking_uri)}"
            status = console.status(f"asking {where}") if console.is_terminal else None
            if status is not None:
                call.tracker.on_delivery = lambda told: status.update(f"delivering to {where}: {_numbers(told)}")
            with status or nullcontext():
                version = deliver_owed(call)
    told = call.tracker.delivered
    if not told.trials and version is None:
        call.say(f"{where} has all of study {name!r}; nothing to deliver")
    else:
        model = "" if version is None else f", and its model as version {version}"
        call.say(f"delivered to {where}: {_numbers(told)} of study {name!r}{model}")
    return 0


def deliver_owed(call: Call) -> str | None:
    """Deliver all; the version of the model if it was registered now.

    Raises:
        TrackingError: MLflow, or the place of its files, cannot be reached; what it is owed stays owed.
    """
    tracker, version = call.tracker, None
    if call.row.winner is not None and call.row.state == "finished":
        version = deliver_results(call, draw_curve(call))
    elif not tracker.close():
        raise TrackingError(tracker.last_error)
    else:
        # Nothing of it runs, and an orchestrator that died may not have said so.
        tracker.end("FAILED" if call.row.state == "failed" else "KILLED")
        tracker.delete_duplicates()
    if tracker.last_error is not None:
        raise TrackingError(tracker.last_error)
    return version


def _numbers(told: Delivered) -> str:
    epochs, runs = told.epochs, len(told.trials)
    return f"{epochs} epoch{'' if epochs == 1 else 's'} of {runs} run{'' if runs == 1 else 's'}"
