"""`sweeper start`: from a study file to a published winner, or to a line that says how to go on."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeper import show
from sweeper.catalog import ENDED, Catalog, StudyRow
from sweeper.dispatch import InProcessWorkers, RayWorkers, import_paths
from sweeper.errors import StoreError, StudyError, StudyFailed, StudyHeld, TrackingError
from sweeper.hand_over import hand_over
from sweeper.interrupt import STOPPED, stop_as_interrupt
from sweeper.lease import Lease
from sweeper.pretrained import with_fetched_models
from sweeper.provenance import git_state, host, user, versions
from sweeper.publish import publish_winner
from sweeper.rank.leaderboard import rank
from sweeper.run import run_study
from sweeper.runner import TRAIN
from sweeper.settings import Settings
from sweeper.storage import keep_resume_points, remove_leftovers
from sweeper.study import Study, load_study
from sweeper.study_folder import StudyFolder
from sweeper.tracking import Tracker
from sweeper.view import LineView, LiveView, Scoreboard, open_view

if TYPE_CHECKING:
    from sweeper.dispatch import Workers


@dataclass(frozen=True)
class Call:
    """All that one call of `start` or `extend` works with."""

    study: Study
    row: StudyRow
    settings: Settings
    catalog: Catalog
    tracker: Tracker
    console: Console
    in_process: bool
    train: str

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.settings.home, self.study.name)

    def say(self, line: str) -> None:
        # Never wrapped: a line that names a command must still be one when it is copied.
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


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
    with closing(Catalog(settings.database_url)) as catalog:
        catalog.add_study(study.name, **_said(study))
        with Lease(catalog, study.name) as lease:
            row = _same_study(catalog, study, settings)
            if row.state != "finished":
                folder = StudyFolder(settings.home, study.name)
                study = replace(study, space=with_fetched_models(study.space, folder, settings))
            call = open_call(study, row, settings, catalog, console, in_process=in_process, train=train)
            if row.state != "finished":
                return carry_out(call, lease)
            call.say(f"study {study.name!r} is finished; nothing to start")
            _remove_what_is_not_needed(call)
            _deliver(call)
            return 0


def open_call(
    study: Study, row: StudyRow, settings: Settings, catalog: Catalog, console: Console, *, in_process: bool, train: str
) -> Call:
    """All that is needed to carry out the study, whose own modules can be imported from now on."""
    # The winner is scored and registered in this process, and may be a user's own `module:function`.
    sys.path[:0] = [path for path in row.import_paths if path not in sys.path]
    tracker = Tracker(settings, catalog, row, study.text, _tags(study))
    return Call(study, row, settings, catalog, tracker, console, in_process, train)


def carry_out(call: Call, lease: Lease) -> int:
    """Train what is missing, publish the winner, hand it over and show it; the exit code.

    Raises:
        StudyHeld: another orchestrator took the study over.
        StudyFailed: no trial worked.
        StoreError: the database or the disk fails.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    # Stopping workers and telling MLflow takes seconds, which a second ctrl-C cuts short.
    with stop_as_interrupt(second_leaves=True):
        code = _run(call, lease)
    if not code:
        _deliver(call)
    return code


def _said(study: Study) -> dict[str, Any]:
    """What the catalog keeps of a study file."""
    return {
        "digest": study.digest,
        "text": study.text,
        "metric": study.search.metric,
        "trials_asked": study.search.trials,
        "file": str(study.path),
        "import_paths": list(import_paths([study.path.parent, Path.cwd()])),
    }


def _same_study(catalog: Catalog, study: Study, settings: Settings) -> StudyRow:
    """The study's row, brought up to date with the file if both say the same study.

    A study of which nothing has come is begun anew: from a new file, or from the same one after it failed, as it does
    when the data or the user's own code were not right yet.
    """
    row = catalog.study(study.name)
    if (row.digest != study.digest or row.state == "failed") and not _has_come_to_something(catalog, row):
        from sweeper.search import forget

        StudyFolder(settings.home, study.name).clear()
        forget(study.name, settings.database_url)
        catalog.reset_study(row.id)
    elif row.digest != study.digest:
        difference = difflib.unified_diff(
            row.text.splitlines(), study.text.splitlines(), "started before", str(study.path), lineterm="", n=1
        )
        raise StudyError(
            f"{study.path}: a study named {study.name!r} was started from a different file; give this one another "
            "name (`study:`) or start the old file; the difference:\n" + "\n".join(difference)
        )
    catalog.set_study(row.id, **_said(study))
    return catalog.study(study.name)


def _has_come_to_something(catalog: Catalog, row: StudyRow) -> bool:
    """Whether beginning anew would lose work: a trial that ended well, or one with epochs to go on from."""
    known = catalog.epochs(row.id)
    return row.state == "finished" or any(
        trial.state in ("complete", "pruned") or (trial.state != "failed" and trial.id in known)
        for trial in catalog.trials(row.id)
    )


def _run(call: Call, lease: Lease) -> int:
    """Train what is missing and publish the winner; the exit code, 0 if the study is finished."""
    catalog, row = call.catalog, call.row
    _remove_what_is_not_needed(call)
    catalog.set_study(row.id, state="running")
    state = "stopped"
    try:
        with open_view(call.console, _scoreboard(call), live=not call.in_process) as view:
            call.tracker.start()
            _train(call, view)
            view.note("ranking the weights kept, then one look at the test split with the winner")
            ranked = rank(catalog.weights(row.id), row.metric)
            if not ranked:
                raise StudyFailed(
                    f"study {row.name!r}: no trial ran to its end, so there is no winner; see: "
                    + show.command(call.settings, "show", row.name)
                )
            publish_winner(catalog, row, ranked[0], call.folder, file_folder=call.study.path.parent)
            _remove_what_is_not_needed(call)
            state = "finished"
            catalog.set_study(row.id, state=state)
    except KeyboardInterrupt:
        if lease.lost:
            raise StudyHeld(f"study {row.name!r} was taken over by another orchestrator; this one stops") from None
        call.say("stopped; continue with: " + show.command(call.settings, "start", str(call.study.path)))
        return STOPPED
    except StudyFailed:
        state = "failed"
        raise
    finally:
        if state != "finished" and not lease.lost:
            _leave(call, state)
    return 0


def _scoreboard(call: Call) -> Scoreboard:
    trials = call.catalog.trials(call.row.id)
    counts: dict[str, int] = Counter(trial.state for trial in trials if trial.state in ENDED)
    board = Scoreboard(call.study.name, call.study.search.metric, call.study.search.trials, counts)
    for trial in trials:
        if trial.state == "complete" and trial.value is not None:
            board.see(trial.number, trial.value)
    return board


def _train(call: Call, view: LineView | LiveView) -> None:
    from sweeper.search import Search

    study, settings = call.study, call.settings
    view.note("opening the study's history")
    with closing(Search(study, settings.database_url, call.row.history)) as search:
        extended = any(trial.is_extended and trial.state not in ENDED for trial in call.catalog.trials(call.row.id))
        if not search.running() and not extended and search.asked >= study.search.trials:
            return
        if not call.in_process:
            view.note("starting the workers (a few seconds)")
        workers: Workers = (
            InProcessWorkers(call.train)
            if call.in_process
            else RayWorkers(study.workers, settings.ray_address, call.train)
        )
        try:
            run_study(
                study,
                call.row,
                search,
                workers,
                call.catalog,
                view,
                folder=call.folder,
                import_paths=tuple(call.row.import_paths),
            )
        finally:
            view.note("stopping the workers")
            workers.close()


def _leave(call: Call, state: str) -> None:
    """Write down where an unfinished study stands: nothing is running any more."""
    # Where the database is what failed there is nothing to write to, and the error under way says so.
    with suppress(StoreError):
        for trial in call.catalog.trials(call.row.id):
            if trial.state == "running":
                call.catalog.set_trial(trial.id, state="waiting")
        call.catalog.set_study(call.row.id, state=state)
        if call.tracker.close():
            with suppress(TrackingError):
                call.tracker.end("FAILED" if state == "failed" else "KILLED")


def _remove_what_is_not_needed(call: Call) -> None:
    complete = call.catalog.weights(call.row.id, of="complete")
    keep_resume_points(complete, call.row.metric, call.study.storage.extendable, call.folder)
    remove_leftovers(call.catalog, call.row, call.folder)


def _deliver(call: Call) -> None:
    hand_over(call)
    show.print_results(call.catalog, call.study.name, call.settings, call.console)


def _tags(study: Study) -> dict[str, str]:
    return {
        **git_state(study.path.parent),
        **{f"version.{name}": number for name, number in versions().items()},
        "host": host(),
        "study.seed": str(study.seed),
        "mlflow.user": user(),
        "mlflow.source.name": f"sweeper start {study.path.name}",
        "mlflow.source.type": "LOCAL",
    }
