"""`sweeper rm`: a study and all that came of it, gone.

First the catalog forgets in one write what the study came to, so that from then on it is a study of which nothing has
come: whatever a kill leaves of the rest, the next `rm` removes, and a `start` begins anew instead. Its row goes last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

from rich.console import Console

from sweeper.catalog import Catalog, StudyRow
from sweeper.control import say
from sweeper.errors import StudyHeld
from sweeper.lease import Lease, is_held
from sweeper.mlflow_client import as_tracking_error
from sweeper.mlflow_runs import StudyRuns
from sweeper.settings import Settings, without_password
from sweeper.show import command
from sweeper.store.open import open_folder
from sweeper.study_folder import StudyFolder


def remove(
    name: str, settings: Settings, console: Console, confirm: Callable[[str], bool], *, in_mlflow: bool = False
) -> int:
    """Remove a study: its folder, its history, its rows, and if wanted its runs in MLflow. Returns the exit code.

    Args:
        name: of the study.
        settings: where things live.
        console: where to say what went.
        confirm: asked with what is about to go; ``False`` leaves all as it is.
        in_mlflow: delete its runs there too, and its experiment unless that holds others.

    Raises:
        StudyHeld: it runs, here or elsewhere.
        TrackingError: MLflow cannot be reached; nothing has gone.
        StoreError: there is no such study, or the database cannot be used.
    """
    folder = open_folder(settings, name)
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        study = catalog.study(name)
        if is_held(study):
            raise StudyHeld(
                f"study {name!r} is run by process {study.owner_pid} on {study.owner_host}; stop it first: "
                + command(settings, "stop", name)
            )
        if not confirm(f"remove {_what_goes(catalog, study, folder, settings, in_mlflow)}?"):
            say(console, "nothing removed")
            return 1
        with Lease(catalog, name, partial(say, console)):
            if in_mlflow:
                _delete_runs(settings, catalog.study(name))
            _remove_what_it_came_to(catalog, study, folder, settings)
        if not catalog.remove_study(study.id):
            raise StudyHeld(f"study {name!r} was begun anew just now: its earlier trials are gone, the new one stays")
    say(console, f"removed study {name!r}")
    return 0


def _what_goes(catalog: Catalog, study: StudyRow, folder: StudyFolder, settings: Settings, in_mlflow: bool) -> str:
    trials = sum(catalog.count_trials(study.id).values())
    held = f"{trials} trial{'' if trials == 1 else 's'}, {_megabytes(folder.used_bytes())} in {folder.place}"
    where = f"MLflow at {without_password(settings.tracking_uri)}"
    runs = f"its runs in {where} too, its model there stays" if in_mlflow else f"its runs and model in {where} stay"
    return f"study {study.name!r} ({held}; {runs})"


def _delete_runs(settings: Settings, study: StudyRow) -> None:
    with as_tracking_error(settings):
        StudyRuns(settings, study, {}).delete_all()


def _remove_what_it_came_to(catalog: Catalog, study: StudyRow, folder: StudyFolder, settings: Settings) -> None:
    from sweeper.search import forget

    catalog.reset_study(study.id, state="failed")
    forget(study.name, settings.database_url)
    folder.clear()


def _megabytes(count: int) -> str:
    """
    >>> _megabytes(2_500_000), _megabytes(1200)
    ('2.5 MB', '0.0 MB')
    """
    return f"{count / 1e6:.1f} MB"
