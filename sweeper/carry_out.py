"""How a study is carried out: trained, ranked, published and handed over, whatever comes between."""

from __future__ import annotations

import errno
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rich.console import Console

from sweeper import show
from sweeper.catalog import ENDED, Catalog, Request, StudyRow, StudyState
from sweeper.dispatch import RayWorkers
from sweeper.errors import NoRoom, StoreError, StudyFailed, StudyHeld, TrackingError, WorkersError
from sweeper.finish.board import read_board
from sweeper.finish.plan import is_over
from sweeper.finish.verdict import verdict
from sweeper.hand_over import hand_over
from sweeper.in_process import InProcessWorkers
from sweeper.interrupt import STOPPED, stop_as_interrupt
from sweeper.lease import Lease
from sweeper.publish import publish_winner
from sweeper.rank.leaderboard import leaderboard
from sweeper.run import run_study
from sweeper.settings import Settings
from sweeper.storage import keep_resume_points, remove_leftovers
from sweeper.store.open import open_folder
from sweeper.store.store import Away
from sweeper.study import Study
from sweeper.study_folder import StudyFolder
from sweeper.tracking import Tracker
from sweeper.view import LineView, LiveView, Scoreboard, open_view, was_continued
from trials.errors import NoSpace

if TYPE_CHECKING:
    from sweeper.dispatch import Workers

LOOK_SECONDS = 1.0
"""How often a paused study looks whether it may go on."""
RETRY_SECONDS = 2.0
"""How often a database that is away is tried again."""
PATIENCE_SECONDS = 3600.0
"""How long a database may be away before the study gives up; it can be started again at any time."""
TRACKER_PATIENCE_SECONDS = 5.0
"""How long a study that stops waits for an MLflow that does not answer; what it is owed is delivered later."""


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

    @cached_property
    def folder(self) -> StudyFolder:
        return open_folder(self.settings, self.study.name)

    def say(self, line: str) -> None:
        # Never wrapped: a line that names a command must still be one when it is copied.
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class WorkersLost(WorkersError):
    """The workers are gone in the midst of their work."""


def carry_out(call: Call, lease: Lease) -> int:
    """Train what is missing, publish the winner, hand it over and show it; the exit code.

    Raises:
        StudyHeld: another orchestrator took the study over.
        StudyFailed: no trial worked.
        NoRoom: the disk is full; the study is paused.
        StoreError: the database or the disk fails.
        WorkersError: Ray does not answer or cannot place the trials.
    """
    # Stopping workers and telling MLflow takes seconds, which a second ctrl-C cuts short.
    with stop_as_interrupt(second_leaves="left at once; " + _onward(call)):
        code = _run(call, lease)
    if not code:
        deliver(call)
    return code


def deliver(call: Call) -> None:
    """Give MLflow what it is owed, and show the results."""
    hand_over(call)
    show.print_results(call.catalog, call.study.name, call.settings, call.console)


def remove_what_is_not_needed(call: Call) -> None:
    """Remove files that nobody will ask for any more, also those that a kill has left."""
    complete = call.catalog.weights(call.row.id, of="complete")
    keep_resume_points(complete, call.row.metric, call.study.storage.extendable, call.folder)
    remove_leftovers(call.catalog, call.row, call.folder)


def _run(call: Call, lease: Lease) -> int:
    """Train what is missing and publish the winner; the exit code, 0 if the study is finished."""
    state: StudyState = "stopped"
    try:
        with open_view(call.console, _scoreboard(call), live=not call.in_process) as view:
            call.tracker.start()
            request = _train_and_publish(call, view)
        if request == "stop":
            call.say("stopped by `sweeper stop`; " + _onward(call))
            return STOPPED
        state = "finished"
    except KeyboardInterrupt:
        if lease.lost:
            raise StudyHeld(f"study {call.row.name!r} was taken over by another orchestrator; this one stops") from None
        call.say("stopped; " + _onward(call))
        return STOPPED
    except StudyFailed:
        state = "failed"
        raise
    except (StoreError, NoSpace, OSError) as error:
        if not _is_full(error):
            raise
        state = "paused"
        again = show.command(call.settings, "resume", call.row.name)
        where = str(error).partition(";")[0]  # what to do is said here
        raise NoRoom(f"{where}; nothing is lost and the study is paused; make room, then: {again}") from error
    finally:
        if state != "finished" and not lease.lost:
            _leave(call, state)
    return 0


def _train_and_publish(call: Call, view: LineView | LiveView) -> Request | None:
    """Until the winner is published, or another terminal wants the study stopped: then ``"stop"``.

    Where the database or the workers were lost, it begins again from what is recorded, as it would after a kill.
    """
    restarts = 0
    while True:
        try:
            remove_what_is_not_needed(call)
            if _train(call, view) == "stop":
                return "stop"
            _publish(call, view)
            return None
        except StoreError as error:
            if not error.transient:
                raise
            _wait(call, view, error)
        except WorkersLost as error:
            restarts += 1
            if restarts > call.study.workers.retries:
                raise
            view.note(f"{error}; starting the workers anew")


def _train(call: Call, view: LineView | LiveView) -> Request | None:
    """Until all trials have ended, with as many pauses as are asked for, or until ``"stop"`` is."""
    while True:
        # Whatever an earlier orchestrator, or this one before it lost the database, has left as running: nothing is.
        _let_wait(call)
        call.catalog.set_study(call.row.id, state="running")
        request = _train_until_asked(call, view)
        if request == "pause":
            call.catalog.set_study(call.row.id, state="paused")
            view.note("paused; go on with: " + show.command(call.settings, "resume", call.row.name))
            while (request := call.catalog.study(call.row.name).request) == "pause":
                time.sleep(LOOK_SECONDS)
            if request is None:
                view.note("going on")
                continue
        return request


def _train_until_asked(call: Call, view: LineView | LiveView) -> Request | None:
    from sweeper.history import remove_old
    from sweeper.search import Search

    study, settings = call.study, call.settings
    view.note("opening the study's history")
    remove_old(call.catalog, call.row)
    with closing(Search(study, settings.database_url, call.catalog.study(study.name).history)) as search:
        trials = call.catalog.trials(call.row.id)
        is_open = any(not trial.tells_search and trial.state not in ENDED for trial in trials)
        if not search.running() and not is_open and search.asked >= study.search.trials and _is_over(call):
            return None
        if not call.in_process:
            view.note("starting the workers (a few seconds)")
        workers: Workers = (
            InProcessWorkers(call.train)
            if call.in_process
            else RayWorkers(study.workers, settings.ray_address, call.train)
        )
        try:
            return run_study(
                study,
                call.row,
                search,
                workers,
                call.catalog,
                view,
                folder=call.folder,
                import_paths=tuple(call.row.import_paths),
            )
        except WorkersError as error:
            raise WorkersLost(str(error)) from error
        finally:
            view.note("stopping the workers")
            workers.close()
            view.idle()


def _is_over(call: Call) -> bool:
    """Whether all finishing moves have been tried."""
    finish = call.study.finish
    return finish is None or is_over(read_board(call.catalog, call.row, finish, call.study.seed))


def _publish(call: Call, view: LineView | LiveView) -> None:
    catalog, row = call.catalog, call.row
    view.note("ranking the weights kept, then one look at the test split with the winner")
    ranked = leaderboard(catalog.weights(row.id), row.metric)
    if not ranked:
        raise StudyFailed(
            f"study {row.name!r}: no trial ran to its end, so there is no winner; see: "
            + show.command(call.settings, "show", row.name)
        )
    winner, said = ranked[0], None
    if call.study.finish is not None:
        found = verdict(read_board(catalog, row, call.study.finish, call.study.seed))
        if found is not None:
            winner, said = found.winner, found.to_dict()
    publish_winner(catalog, row, winner, call.folder, file_folder=call.study.path.parent, verdict=said)
    remove_what_is_not_needed(call)
    catalog.set_study(row.id, state="finished", request=None)


def _wait(call: Call, view: LineView | LiveView, error: StoreError) -> None:
    """Until the database, or the store, answers again.

    Raises:
        StoreError: it has been away for `PATIENCE_SECONDS`, or something else is wrong with it by now.
    """
    what = "store" if isinstance(error, Away) else "database"
    view.note(f"waiting for the {what} ({error})")
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        time.sleep(RETRY_SECONDS)
        try:
            call.catalog.study(call.row.name)
            call.folder.check()
        except StoreError as still:
            if not still.transient or time.monotonic() > until:
                raise
        else:
            view.note(f"the {what} answers again")
            return


def _let_wait(call: Call) -> None:
    for trial in call.catalog.trials(call.row.id):
        if trial.state == "running":
            call.catalog.set_trial(trial.id, state="waiting")


def _leave(call: Call, state: StudyState) -> None:
    """Write down where an unfinished study stands: nothing is running any more."""
    # Where the database is what failed there is nothing to write to, and the error under way says so; where another
    # orchestrator has the study, it writes.
    with suppress(StoreError, StudyHeld):
        _let_wait(call)
        call.catalog.set_study(call.row.id, state=state, request=None)
        if call.tracker.close(patience_seconds=TRACKER_PATIENCE_SECONDS):
            with suppress(TrackingError):
                call.tracker.end("FAILED" if state == "failed" else "KILLED")


def _onward(call: Call) -> str:
    return "continue with: " + show.command(call.settings, *show.start_again(call.row))


def _is_full(error: StoreError | NoSpace | OSError) -> bool:
    if isinstance(error, NoSpace):  # while the winner was packed
        return True
    return error.no_space if isinstance(error, StoreError) else error.errno in (errno.ENOSPC, errno.EDQUOT)


def _scoreboard(call: Call) -> Scoreboard:
    trials = call.catalog.trials(call.row.id)
    ended = [trial for trial in trials if trial.state in ENDED]
    counts: dict[str, int] = Counter(trial.state for trial in ended if trial.role == "search")
    board = Scoreboard(call.study.name, call.study.search.metric, call.study.search.trials, counts)
    board.moves = sum(trial.role != "search" for trial in ended)
    board.continued = {trial.number for trial in trials if was_continued(trial.attempts)}
    for trial in trials:
        if trial.state == "complete" and trial.value is not None:
            board.see(trial.number, trial.value)
    return board
