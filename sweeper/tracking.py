"""MLflow: one parent run for the study, a child run for each trial.

A thread delivers what the catalog says is owed, in batches, off the training path. Nothing is queued in memory: a
tracking server that is away, or a restart, costs lateness and no more. Delivery is idempotent: a metric carries the
time of its report, and MLflow keeps one row for the same name, step, time and value; a run is looked up by its tags
wherever it may have been made before, and one that a person deleted is made anew when there is more to tell of it.
Files come last: a place for them that fails withholds no number.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeper.catalog import ENDED, Catalog, EpochRow, StudyRow, TrialRow
from sweeper.errors import StoreError, StudyHeld, SweeperError
from sweeper.mlflow_client import as_tracking_error, in_one_line, is_active_run
from sweeper.mlflow_runs import StudyRuns
from sweeper.settings import Settings, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 200
"""Epochs fetched from the catalog at a time."""
FILES_PAUSE_SECONDS = 60.0
"""How long no file is tried after one that could not be stored: each try may take as long as a call may."""


@dataclass
class Delivered:
    """What MLflow has been told by one process."""

    epochs: int = 0
    trials: set[int] = field(default_factory=set)
    """The ids of trials whose runs were made, or told anything."""


@dataclass
class Tracker:
    """Delivers one study to MLflow.

    Args:
        settings: where MLflow is.
        catalog: what there is to deliver; used from a thread of its own.
        study: the study's row.
        study_text: study.yaml as it was read.
        tags: commit, versions, host and the like, for every run.
        interval_seconds: pause between deliveries.
    """

    settings: Settings
    catalog: Catalog
    study: StudyRow
    study_text: str
    tags: Mapping[str, str]
    interval_seconds: float = 2.0
    last_error: str | None = None
    """Why the newest delivery failed, or why files are missing in it, in one line."""
    delivered: Delivered = field(default_factory=Delivered)
    on_delivery: Callable[[Delivered], None] = lambda _: None
    """Called after each part of a delivery."""
    _is_live: bool = False
    _run_id: str | None = None
    _telling: str = ""
    """The run that is being told something."""
    _inherited: int = 0
    """The newest trial that was there before this process began; its run may have been made by another."""
    _all_delivered: bool = False
    _tried: set[int] = field(default_factory=set)
    _study_file_stored: bool = False
    _files_error: str | None = None
    _files_from: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._runs = StudyRuns(self.settings, self.study, self.tags)
        self._inherited = max((trial.id for trial in self.catalog.trials(self.study.id)), default=0)

    def start(self) -> None:
        """Begin to deliver in the background; runs that an earlier orchestrator left are shown as running again."""
        self._is_live = True
        self._thread = threading.Thread(target=self._deliver_until_stopped, name="tracker", daemon=True)
        self._thread.start()

    def close(self, patience_seconds: float | None = None) -> bool:
        """Stop the thread and deliver what is left; ``False`` if MLflow could not be reached.

        Args:
            patience_seconds: how long an MLflow that accepts calls and does not answer is waited for.

        Raises:
            StudyHeld: there is no thread, and another process has taken the study over.
        """
        self._stop.set()
        if self._thread is None:
            self._files_from = 0.0
            return self._try_to_deliver()
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            self.last_error = f"MLflow at {self._here}: no answer within {patience_seconds:g} s"
            return False
        self._thread = None
        return self._all_delivered

    @property
    def client(self) -> MlflowClient:
        """The client, connected at first use.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        return self._runs.client

    def owes(self) -> bool:
        """Whether this MLflow has not heard of everything, as far as can be told without connecting to it."""
        database = self.settings.tracking_file
        return (
            self.catalog.study(self.study.name).tracking_uri != self._here
            or (database is not None and not database.exists())
            or self.catalog.owes(self.study.id)
        )

    def deliver(self) -> None:
        """Deliver all that is owed now.

        Raises:
            TrackingError: MLflow cannot be reached; what is owed stays owed.
        """
        self._tell(self._deliver)

    def open_parent(self) -> str:
        """The parent run, made now if there is none."""
        if self._run_id is None:
            run_id = self._known_parent() or self._make_parent()
            if self._is_live:
                for left in (run_id, *self._open_runs()):
                    self._telling = left
                    self.client.update_run(left, status="RUNNING")
            self._run_id = run_id
        return self._run_id

    def end(self, status: str, metrics: Mapping[str, float] | None = None) -> None:
        """End the parent run, and the runs of trials that have not ended: an unfinished study leaves some.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        self._tell(lambda: self._end(status, metrics or {}))

    def delete_duplicates(self) -> None:
        """Delete runs of this study that were made a second time, by a call whose answer was lost.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        with as_tracking_error(self.settings):
            trials = self.catalog.trials(self.study.id)
            self._runs.delete_duplicates({self.open_parent(), *(trial.run_id for trial in trials if trial.run_id)})

    def _end(self, status: str, metrics: Mapping[str, float]) -> None:
        run_id = self.open_parent()
        for name, value in metrics.items():
            self.client.log_metric(run_id, name, value)
        for left in self._open_runs():
            self._telling = left
            self.client.set_terminated(left, "KILLED")
        self.client.set_terminated(run_id, status)

    def _tell(self, work: Callable[[], None]) -> None:
        """Do it, and again where it stumbles over a run that somebody deleted."""
        with as_tracking_error(self.settings):
            while True:
                self._telling = ""
                try:
                    return work()
                except SweeperError:
                    self._look_up_anew()
                    raise
                except Exception:
                    self._look_up_anew()
                    if not self._telling or is_active_run(self.client, self._telling):
                        raise
                    self.catalog.owe_run_again(self._telling)

    def _look_up_anew(self) -> None:
        """Ask again whether the runs and their experiment are there still."""
        self._run_id = None
        self._runs.look_up_anew()

    @property
    def _here(self) -> str:
        return without_password(self.settings.tracking_uri)

    def _deliver_until_stopped(self) -> None:
        try:
            while not self._stop.wait(self.interval_seconds):
                self._try_to_deliver()
            self._files_from = 0.0
            self._all_delivered = self._try_to_deliver()
        except StudyHeld as error:
            # Whoever has the study now tells MLflow of it; this process hears of it by its lease.
            self.last_error = str(error)

    def _try_to_deliver(self) -> bool:
        try:
            self.deliver()
        except StudyHeld:
            raise
        except SweeperError as error:
            self.last_error = str(error)
            return False
        self.last_error = self._files_error
        return True

    def _deliver(self) -> None:
        self.open_parent()
        for trial in self.catalog.owed_trials(self.study.id):
            run_id = self._telling = trial.run_id or self._open_child(trial)
            if not trial.described:
                self._runs.describe(run_id, trial)
                self.catalog.set_trial(trial.id, described=True)
                self._note(trial.id)
        while owed := self.catalog.owed_epochs(self.study.id, BATCH):
            self._log_epochs(owed)
        for trial in self.catalog.owed_trials(self.study.id):
            if trial.state in ENDED and trial.run_id is not None:
                self._telling = trial.run_id
                self._runs.end_child(trial.run_id, trial)
                # A traceback is one more file, and so are pictures.
                has_more_files = "traceback" in trial.facts or bool(self._runs.pictures(trial))
                has_all_files = trial.files_delivered and not has_more_files
                self.catalog.set_trial(trial.id, delivered=True, files_delivered=has_all_files)
                self._note(trial.id)
        self._store_files()

    def _note(self, trial_id: int, epochs: int = 0) -> None:
        self.delivered.trials.add(trial_id)
        self.delivered.epochs += epochs
        self.on_delivery(self.delivered)

    def _known_parent(self) -> str | None:
        """The run that the catalog knows, if this is the MLflow that has it; otherwise all is owed again."""
        study = self.catalog.study(self.study.name)
        if study.tracking_uri == self._here and (study.run_id is None or is_active_run(self.client, study.run_id)):
            return study.run_id
        self.catalog.owe_again(self.study.id, self._here)
        self._study_file_stored = False
        return None

    def _make_parent(self) -> str:
        run_id = self._runs.find_parent() or self._runs.make_parent()
        self.catalog.set_study(self.study.id, run_id=run_id)
        return run_id

    def _open_runs(self) -> list[str]:
        """The runs of trials that have not ended."""
        trials = self.catalog.trials(self.study.id)
        return [trial.run_id for trial in trials if trial.state not in ENDED and trial.run_id is not None]

    def _open_child(self, trial: TrialRow) -> str:
        """The run of a trial, made now if there is none; the catalog is told before anything else can fail."""
        parent = self.open_parent()
        run_id = None
        # An earlier process, or an earlier call whose answer was lost, may have made it.
        if trial.id in self._tried or trial.id <= self._inherited:
            run_id = self._runs.find_child(trial)
        self._tried.add(trial.id)
        if run_id is None:
            run_id = self._runs.make_child(trial, parent)
        else:
            self.client.set_tag(run_id, "mlflow.parentRunId", parent)
        self.catalog.set_trial(trial.id, run_id=run_id)
        return run_id

    def _log_epochs(self, owed: Sequence[tuple[str, EpochRow]]) -> None:
        by_run: dict[str, list[EpochRow]] = defaultdict(list)
        for run_id, epoch in owed:
            by_run[run_id].append(epoch)
        for run_id, epochs in by_run.items():
            self._telling = run_id
            self._runs.log_epochs(run_id, epochs)
            self.catalog.mark_delivered([epoch.id for epoch in epochs])
            self._note(epochs[0].trial_id, len(epochs))

    def _store_files(self) -> None:
        """Store the files that are owed; a failure is remembered, and they are tried again later."""
        if time.monotonic() < self._files_from:
            return
        try:
            if not self._study_file_stored:
                self.client.log_text(self.open_parent(), self.study_text, "study.yaml")
                self._study_file_stored = True
            for trial in self.catalog.owed_files(self.study.id):
                if trial.run_id is not None:
                    self._runs.store_files(trial.run_id, trial)
                    self.catalog.set_trial(trial.id, files_delivered=True)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 (each kind of file store raises its own)
            self._files_error = f"files are missing in {in_one_line(self.settings, error)}"
            self._files_from = time.monotonic() + FILES_PAUSE_SECONDS
        else:
            self._files_error = None
