"""The examination of one study or all, and what is said of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from sweeper.catalog import Catalog, StudyRow
from sweeper.control import say
from sweeper.doctor.findings import WORDS, Examination, one_line
from sweeper.doctor.of_checkpoints import check_checkpoints
from sweeper.doctor.of_files import check_files
from sweeper.doctor.of_history import check_history
from sweeper.doctor.of_runs import check_runs
from sweeper.doctor.of_states import check_states
from sweeper.doctor.repair import mend
from sweeper.errors import StoreError, StudyHeld, SweeperError
from sweeper.lease import Lease, is_held
from sweeper.settings import Settings, without_password
from sweeper.show import command
from sweeper.start import load_started
from sweeper.user_code import make_importable
from sweeper.view import counted

CHECKS: dict[str, Callable[[Examination], None]] = {
    "the catalog": check_states,
    "Optuna": check_history,
    "the files": check_files,
    "the checkpoints": check_checkpoints,
    "MLflow": check_runs,
}
COUNTED = ("trials", "epochs", "files", "checkpoints", "runs")
QUIET_SECONDS = 2.0
"""How long an examination may take before it shows how far it is."""
Progressed = Callable[[str, int, int], None]


def doctor(
    name: str | None, settings: Settings, console: Console, *, repair: bool = False, as_json: bool = False
) -> int:
    """Compare what the catalog, the search's history, MLflow and the files say; 1 if they disagree in the end, else 0.

    Args:
        name: of the study; ``None``: all there are.
        settings: where things live.
        console: where to say what was found.
        repair: mend what can be mended, and look again.
        as_json: say it for programs.

    Raises:
        StudyHeld: it is to be mended, and runs.
        StoreError: there is no such study, or the database cannot be used.
    """
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        try:
            place = catalog.place
            rows = catalog.studies() if name is None else [catalog.study(name)]
        except ValueError as error:
            where = without_password(settings.database_url)
            raise StoreError(f"database {where}: the rows of the studies cannot be read ({error})") from error
        if repair and name is not None and is_held(rows[0]):
            raise StudyHeld(f"study {name!r} runs; stop it first: {command(settings, 'stop', name)}")
    told = []
    for row in rows:
        with _progress(console, shown=not as_json) as progress:
            mended = _mended(row.name, settings, console, progress) if repair and not is_held(row) else []
            # By a catalog of its own: the fence of one that mended is for good.
            with closing(Catalog(settings.database_url, create=False)) as catalog:
                row = catalog.study(row.name)
                told.append((examine(catalog, row, settings, progress, runs_now=is_held(row)), mended))
    if as_json:
        console.file.write(json.dumps({"studies": [_as_json(*one) for one in told]}, indent=2) + "\n")
    else:
        for seen, mended in told:
            for line in [*mended, *_lines(seen)]:
                say(console, f"{seen.row.name}: {line}")
        if not told:
            say(console, f"no studies yet in {place}; nothing to compare")
    return int(any(seen.findings for seen, _ in told))


def examine(
    catalog: Catalog, row: StudyRow, settings: Settings, progress: Progressed = lambda *_: None, *, runs_now: bool
) -> Examination:
    """Look at one study; whatever cannot be looked at is a finding.

    Args:
        catalog: has the study.
        row: the study's.
        settings: where things live.
        progress: told what is being looked at, and how much of how much is done.
        runs_now: an orchestrator has it, so that what is under way is left out.

    Raises:
        StoreError: the database cannot be used.
    """
    load = partial(load_started, row, settings)
    seen = Examination(settings, row, [], {}, [], runs_now, time.time(), load, progress)
    try:
        # The catalog first: what it says, the others have been told by then, or soon will be.
        seen.trials, seen.epochs, seen.weights = catalog.trials(row.id), catalog.epochs(row.id), catalog.weights(row.id)
    except ValueError as error:
        seen.find("study", f"its rows in the catalog cannot be read ({one_line(error)})")
        return seen
    # Its model may be a user's own `module:function`.
    make_importable(row.import_paths)
    for what, check in CHECKS.items():
        try:
            check(seen)
        except (SweeperError, OSError) as error:
            seen.find("study", f"{what} cannot be compared: {one_line(error)}")
        except Exception as error:  # noqa: BLE001  rows that somebody wrote by hand may hold anything
            seen.find("study", f"{what} cannot be compared ({type(error).__name__}: {one_line(error)})")
    return seen


@contextmanager
def _progress(console: Console, *, shown: bool) -> Iterator[Progressed]:
    """A bar, for an examination that takes a while."""
    begin, bars = time.monotonic(), dict[str, TaskID]()
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:

        def show(what: str, done: int, total: int) -> None:
            if time.monotonic() - begin >= QUIET_SECONDS:
                if what not in bars:
                    bars[what] = progress.add_task(what, total=total)
                progress.update(bars[what], completed=done)

        yield show


def _mended(name: str, settings: Settings, console: Console, progress: Progressed) -> list[str]:
    """Mend a study that does not run; a line for each thing that was done, or could not be."""
    with closing(Catalog(settings.database_url, create=False)) as catalog:
        if not examine(catalog, catalog.study(name), settings, progress, runs_now=False).findings:
            return []
        with Lease(catalog, name, partial(say, console)):
            seen = examine(catalog, catalog.study(name), settings, progress, runs_now=False)
            return mend(seen, catalog, console)


def _lines(seen: Examination) -> list[str]:
    counts = ", ".join(counted(seen.checked[what], what) for what in COUNTED)
    running = [f"runs on {seen.row.owner_host}: only trials that have ended are compared"] if seen.runs_now else []
    verdict = [] if seen.findings else [f"nothing disagrees ({counts} checked)"]
    return [*running, *(finding.line for finding in seen.findings), *(f"note: {note}" for note in seen.notes), *verdict]


def _as_json(seen: Examination, mended: list[str]) -> dict[str, Any]:
    return {
        "study": seen.row.name,
        "running": seen.runs_now,
        "mended": mended,
        "findings": [
            {
                "where": finding.where,
                "what": finding.what,
                "repair": None if finding.action is None else WORDS[finding.action],
            }
            for finding in seen.findings
        ],
        "notes": seen.notes,
        "checked": {what: seen.checked[what] for what in COUNTED},
    }
