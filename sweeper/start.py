"""`sweeper start`: from a study file to a published winner, or to a line that says how to go on."""

from __future__ import annotations

import difflib
import getpass
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeper import show
from sweeper.catalog import Catalog, StudyRow
from sweeper.dispatch import InProcessWorkers, RayWorkers, import_paths
from sweeper.errors import StudyError, StudyFailed, TrackingError
from sweeper.interrupt import sigterm_as_interrupt
from sweeper.lease import Lease
from sweeper.provenance import git_state, host, versions
from sweeper.publish import publish_winner, requirements
from sweeper.rank.leaderboard import rank
from sweeper.run import run_study
from sweeper.runner import TRAIN
from sweeper.settings import Settings
from sweeper.study import Study, load_study
from sweeper.tracking import Tracker, log_model
from sweeper.view import LineView, LiveView, Scoreboard, open_view

if TYPE_CHECKING:
    from sweeper.dispatch import Workers

STOPPED = 130
"""Exit code of a study that was interrupted: 128 + SIGINT, as shells have it."""


def start(path: Path, settings: Settings, console: Console, *, in_process: bool = False, train: str = TRAIN) -> int:
    """Run the study of that file to its end, or continue it; returns the exit code.

    Args:
        path: study.yaml.
        settings: where things live.
        console: where to show progress.
        in_process: train in this process, one trial at a time, without Ray.
        train: `module:function` that trains one recipe.

    Raises:
        StudyError: the file is wrong, or differs from the study of that name.
        StudyHeld: another orchestrator runs it.
        StudyFailed: no trial worked.
        StoreError: the database or the disk fails.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    study = load_study(path)
    catalog = Catalog(settings.database_url)
    try:
        row = _same_study(catalog, study)
        tracker = Tracker(settings, catalog, row, study.text, _tags(study))
        if row.state == "finished":
            _say(console, f"study {study.name!r} is finished; nothing to start")
            _hand_over(tracker, catalog, row, settings, console)
            show.print_results(catalog, row.name, settings, console)
            return 0
        with Lease(catalog, study.name):
            return _run(study, row, settings, catalog, tracker, console, in_process=in_process, train=train)
    finally:
        catalog.close()


def _same_study(catalog: Catalog, study: Study) -> StudyRow:
    row = catalog.add_study(
        study.name,
        digest=study.digest,
        text=study.text,
        metric=study.search.metric,
        trials_asked=study.search.trials,
    )
    if row.digest != study.digest:
        difference = difflib.unified_diff(
            row.text.splitlines(), study.text.splitlines(), "started before", str(study.path), lineterm="", n=1
        )
        raise StudyError(
            f"{study.path}: a study named {study.name!r} was started from a different file; give this one another "
            "name (`study:`) or start the old file; the difference:\n" + "\n".join(difference)
        )
    return row


def _run(
    study: Study,
    row: StudyRow,
    settings: Settings,
    catalog: Catalog,
    tracker: Tracker,
    console: Console,
    *,
    in_process: bool,
    train: str,
) -> int:
    catalog.set_study(row.id, state="running")
    counts: dict[str, int] = {s: n for s, n in catalog.count_trials(row.id).items() if s in show.ENDED}
    board = Scoreboard(study.name, study.search.metric, study.search.trials, counts)
    for trial in catalog.trials(row.id):
        if trial.state == "complete" and trial.value is not None:
            board.see(trial.number, trial.value)
    state = "stopped"
    try:
        with sigterm_as_interrupt(), open_view(console, board) as view:
            tracker.start()
            _train(study, row, settings, catalog, view, in_process=in_process, train=train)
            view.note("ranking the weights kept, then one look at the test split with the winner")
            ranked = rank(catalog.weights(row.id), row.metric)
            if not ranked:
                raise StudyFailed(
                    f"study {study.name!r}: no trial ran to its end, so there is no winner; see: "
                    f"sweeper show {study.name}"
                )
            publish_winner(catalog, row, ranked[0], settings.study_folder(study.name), file_folder=study.path.parent)
            view.note("handing the results to MLflow")
            state = "finished"
            catalog.set_study(row.id, state=state)
    except KeyboardInterrupt:
        _say(console, f"stopped; continue with: sweeper start {study.path}{show.home_option(settings)}")
        return STOPPED
    except StudyFailed:
        state = "failed"
        raise
    finally:
        if state != "finished":
            _leave(catalog, row, tracker, state)
    _hand_over(tracker, catalog, row, settings, console)
    show.print_results(catalog, row.name, settings, console)
    return 0


def _train(
    study: Study,
    row: StudyRow,
    settings: Settings,
    catalog: Catalog,
    view: LineView | LiveView,
    *,
    in_process: bool,
    train: str,
) -> None:
    from sweeper.search import Search

    paths = import_paths([study.path.parent, Path.cwd()])
    # The winner is scored in this process, and may be a user's own `module:function`.
    sys.path[:0] = [path for path in paths if path not in sys.path]
    view.note("opening the study's history")
    with closing(Search(study, settings.database_url)) as search:
        if not search.running() and search.asked >= study.search.trials:
            return
        view.note("starting the workers (a few seconds)")
        workers: Workers = (
            InProcessWorkers(train) if in_process else RayWorkers(study.workers, settings.ray_address, train)
        )
        try:
            run_study(
                study,
                row,
                search,
                workers,
                catalog,
                view,
                folder=settings.study_folder(study.name),
                import_paths=paths,
            )
        finally:
            view.note("stopping the workers")
            workers.close()


def _leave(catalog: Catalog, row: StudyRow, tracker: Tracker, state: str) -> None:
    """Write down where an unfinished study stands: nothing is running any more."""
    for trial in catalog.trials(row.id):
        if trial.state == "running":
            catalog.set_trial(trial.id, state="waiting")
    catalog.set_study(row.id, state=state)
    if tracker.close():
        try:
            tracker.end("FAILED" if state == "failed" else "KILLED")
        except TrackingError as error:
            tracker.last_error = str(error)


def _hand_over(tracker: Tracker, catalog: Catalog, row: StudyRow, settings: Settings, console: Console) -> None:
    """Deliver what MLflow is still owed of a finished study: epochs, runs, and the model, once."""
    winner = catalog.study(row.name).winner
    if winner is None or ("model_version" in winner and not catalog.owes(row.id)):
        return
    delivered = tracker.close()
    if delivered and "model_version" not in winner:
        try:
            with console.status("registering the winner in MLflow") if console.is_terminal else _nothing():
                version = log_model(
                    tracker, settings.winner_folder(row.name), name=row.name, requirements=requirements()
                )
                tracker.end("FINISHED", _numbers(winner))
            catalog.set_study(row.id, winner={**winner, "model_version": version})
        except TrackingError as error:
            tracker.last_error = str(error)
    if tracker.last_error is not None:
        _say(console, f"{tracker.last_error}; what it is owed is kept and delivered by the next: sweeper start")


def _numbers(winner: dict[str, Any]) -> dict[str, float]:
    """The winner's metrics as the parent run shows them."""
    return {
        "winner.trial": float(winner["trial"]),
        **{f"winner.selection.{name.removeprefix('validation.')}": v for name, v in winner["selection"].items()},
        **{f"winner.{name}": value for name, value in winner["test"].items()},
    }


def _tags(study: Study) -> dict[str, str]:
    return {
        **git_state(study.path.parent),
        **{f"version.{name}": number for name, number in versions().items()},
        "host": host(),
        "study.seed": str(study.seed),
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": f"sweeper start {study.path.name}",
        "mlflow.source.type": "LOCAL",
    }


def _say(console: Console, line: str) -> None:
    # Never wrapped: a line that names a command must still be one when it is copied.
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
