"""MLflow: one parent run for the study, a child run for each trial.

A thread delivers what the catalog says is owed, in batches, off the training path. Nothing is queued in memory: a
tracking server that is away, or a restart, costs lateness and no more. Delivery is idempotent: a metric carries the
time of its report, and MLflow keeps one row for the same name, step, time and value; a run is looked up by its tags
wherever it may have been made before. Files come last: a place for them that fails withholds no number.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.catalog import ENDED, Catalog, EpochRow, StudyRow, TrialRow
from sweeper.errors import StoreError, TrackingError
from sweeper.mlflow_client import as_tracking_error, in_one_line, is_active_run, quiet
from sweeper.mlflow_runs import StudyRuns
from sweeper.settings import Settings, without_password
from sweeper.user_code import module_files

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 200
"""Epochs fetched from the catalog at a time."""
FILES_PAUSE_SECONDS = 60.0
"""How long no file is tried after one that could not be stored: each try may take as long as a call may."""


WEIGHTS_TAG = "sweeper.weights_sha256"
"""The tag of a registered version that says which weights it is."""


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
    _is_live: bool = False
    _run_id: str | None = None
    _born_at: float = field(default_factory=time.time)
    _tried: set[int] = field(default_factory=set)
    _study_file_stored: bool = False
    _files_error: str | None = None
    _files_from: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._runs = StudyRuns(self.settings, self.study, self.tags)

    def start(self) -> None:
        """Begin to deliver in the background; runs that an earlier orchestrator left are shown as running again."""
        self._is_live = True
        self._thread = threading.Thread(target=self._deliver_until_stopped, name="tracker", daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """Stop the thread and deliver what is left; ``False`` if MLflow could not be reached."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._files_from = 0.0
        return self._try_to_deliver()

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
        with as_tracking_error(self.settings):
            try:
                self._deliver()
            except Exception:
                self._run_id = None  # whether it is there still is asked anew
                self._runs.look_up_anew()
                raise

    def open_parent(self) -> str:
        """The parent run, made now if there is none."""
        if self._run_id is None:
            run_id = self._known_parent() or self._make_parent()
            if self._is_live:
                for left in (run_id, *self._open_runs()):
                    self.client.update_run(left, status="RUNNING")
            self._run_id = run_id
        return self._run_id

    def end(self, status: str, metrics: Mapping[str, float] | None = None) -> None:
        """End the parent run, and the runs of trials that have not ended: an unfinished study leaves some.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        with as_tracking_error(self.settings):
            run_id = self.open_parent()
            for name, value in (metrics or {}).items():
                self.client.log_metric(run_id, name, value)
            for left in self._open_runs():
                self.client.set_terminated(left, "KILLED")
            self.client.set_terminated(run_id, status)

    @property
    def _here(self) -> str:
        return without_password(self.settings.tracking_uri)

    def _deliver_until_stopped(self) -> None:
        while not self._stop.wait(self.interval_seconds):
            self._try_to_deliver()

    def _try_to_deliver(self) -> bool:
        try:
            self.deliver()
        except (TrackingError, StoreError) as error:
            self.last_error = str(error)
            return False
        self.last_error = self._files_error
        return True

    def _deliver(self) -> None:
        self.open_parent()
        for trial in self.catalog.owed_trials(self.study.id):
            run_id = trial.run_id or self._open_child(trial)
            if not trial.described:
                self._runs.describe(run_id, trial)
                self.catalog.set_trial(trial.id, described=True)
        while owed := self.catalog.owed_epochs(self.study.id, BATCH):
            self._log_epochs(owed)
        for trial in self.catalog.owed_trials(self.study.id):
            if trial.state in ENDED and trial.run_id is not None:
                self._runs.end_child(trial.run_id, trial)
                # A traceback is one more file, and so are pictures.
                has_more_files = "traceback" in trial.facts or bool(self._runs.pictures(trial))
                has_all_files = trial.files_delivered and not has_more_files
                self.catalog.set_trial(trial.id, delivered=True, files_delivered=has_all_files)
        self._store_files()

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
        if trial.id in self._tried or trial.started_at < self._born_at:
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
            self._runs.log_epochs(run_id, epochs)
            self.catalog.mark_delivered([epoch.id for epoch in epochs])

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


def log_model(tracker: Tracker, package: Path, *, name: str, requirements: Sequence[str]) -> str:
    """Log a model package to the study's run, register it and give it the alias ``best``; returns the version.

    The artifact is the package itself (safetensors and JSON) with the `trials` package beside it, and the user's own
    module where that is a single file: loading it runs no pickle and needs no sweeper. Weights that were registered
    from that run before are not registered again.

    Args:
        tracker: holds the client and the parent run.
        package: a folder written by `trials.package.write_package`.
        name: the registered model's name: the study's.
        requirements: pip requirements of the `trials` package.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    import mlflow

    import trials

    recipe = json.loads((package / "recipe.json").read_bytes())
    sha256 = json.loads((package / "package.json").read_bytes())["weights_sha256"]
    with as_tracking_error(tracker.settings):
        run_id = tracker.open_parent()
        version = _registered_version(tracker.client, name, run_id, sha256)
        if version is None:
            with quiet(), mlflow.start_run(run_id=run_id):
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    loader_module="trials.package",
                    data_path=str(package),
                    code_paths=[str(Path(trials.__file__).parent), *map(str, module_files(recipe))],
                    pip_requirements=list(requirements),
                    signature=_signature(package),
                    registered_model_name=name,
                    tags={WEIGHTS_TAG: sha256},
                )
            version = str(logged.registered_model_version)
        tracker.client.set_registered_model_alias(name, "best", version)
    return version


def _registered_version(client: MlflowClient, name: str, run_id: str, sha256: str) -> str | None:
    """The version that has been registered from that run with these weights."""
    ours = [found for found in client.search_model_versions(f"name = '{name}'") if found.run_id == run_id]
    versions = [int(found.version) for found in ours if found.tags.get(WEIGHTS_TAG) == sha256]
    return str(max(versions)) if versions else None


def _signature(package: Path) -> Any:
    """What the model takes and gives: columns by name if its examples are rows of a table, else one array."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    from trials.data import Preprocess
    from trials.package import describe_arrays

    (in_type, in_shape), (out_type, out_shape) = describe_arrays(package)
    columns = Preprocess.from_dict(json.loads((package / "package.json").read_bytes())["preprocess"]).columns()
    given: list[ColSpec | TensorSpec] = [ColSpec(kind, name) for name, kind in columns or ()]
    if columns is None:
        given = [TensorSpec(in_type, (-1, *in_shape))]
    return ModelSignature(inputs=Schema(given), outputs=Schema([TensorSpec(out_type, (-1, *out_shape))]))
