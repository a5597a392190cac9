"""MLflow: one parent run for the study, a child run for each trial. The only module that knows MLflow.

A thread delivers what the catalog says is owed, in batches, off the training path. Nothing is queued in memory: a
tracking server that is away, or a restart, costs lateness and no more. Delivery is idempotent: a metric carries the
time of its report, and MLflow keeps one row for the same name, step, time and value; a run is looked up by its tag
before it is made.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.catalog import ENDED, Catalog, EpochRow, StudyRow, TrialRow
from sweeper.errors import StoreError, TrackingError
from sweeper.settings import Settings, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 200
"""Epochs fetched from the catalog at a time."""
BATCH_METRICS = 1000
"""MLflow's own limit for one `log_batch`."""
RUN_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def connect(settings: Settings) -> MlflowClient:
    """A client for the tracking server, or for the local database, which is created if need be.

    Raises:
        TrackingError: it cannot be reached.
    """
    # A dead server would otherwise block a call for minutes: what is owed is kept and tried again anyway.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    mlflow.set_tracking_uri(settings.tracking_uri)
    mlflow.set_registry_uri(settings.tracking_uri)
    try:
        return MlflowClient(settings.tracking_uri, settings.tracking_uri)
    except Exception as error:
        raise _as_tracking_error(settings, error) from error


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
    _is_live: bool = False
    _client: MlflowClient | None = None
    _run_id: str | None = None
    _experiment_id: str | None = None
    _born_at: float = field(default_factory=time.time)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to deliver in the background."""
        self._is_live = True
        self._thread = threading.Thread(target=self._deliver_until_stopped, name="tracker", daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """Stop the thread and deliver what is left; ``False`` if MLflow could not be reached."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._try_to_deliver()

    @property
    def run_id(self) -> str | None:
        """The parent run, once there is one."""
        return self._run_id

    @property
    def client(self) -> MlflowClient:
        """The client, connected at first use.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        if self._client is None:
            self._client = connect(self.settings)
        return self._client

    def deliver(self) -> None:
        """Deliver all that is owed now.

        Raises:
            TrackingError: MLflow cannot be reached; what is owed stays owed.
        """
        try:
            self._open_parent()
            trials = self.catalog.owed_trials(self.study.id)
            for trial in trials:
                if trial.run_id is None:
                    self._open_child(trial)
            while owed := self.catalog.owed_epochs(self.study.id, BATCH):
                self._log_epochs(owed)
            for trial in self.catalog.owed_trials(self.study.id):
                if trial.state in ENDED and trial.run_id is not None:
                    self._end_child(trial, trial.run_id)
        except (TrackingError, StoreError):
            raise
        except Exception as error:
            raise _as_tracking_error(self.settings, error) from error

    def end(self, status: str, metrics: Mapping[str, float] | None = None) -> None:
        """End the parent run.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        try:
            run_id = self._open_parent()
            for name, value in (metrics or {}).items():
                self.client.log_metric(run_id, name, value)
            self.client.set_terminated(run_id, status)
        except TrackingError:
            raise
        except Exception as error:
            raise _as_tracking_error(self.settings, error) from error

    def _deliver_until_stopped(self) -> None:
        while not self._stop.wait(self.interval_seconds):
            self._try_to_deliver()

    def _try_to_deliver(self) -> bool:
        try:
            self.deliver()
        except (TrackingError, StoreError) as error:
            self.last_error = str(error)
            return False
        self.last_error = None
        return True

    def _open_parent(self) -> str:
        if self._run_id is None:
            client = self.client
            known = self.catalog.study(self.study.name).run_id
            self._run_id = known or self._make_parent(client)
            if known is not None and self._is_live:
                client.update_run(known, status="RUNNING")
        return self._run_id

    def _make_parent(self, client: MlflowClient) -> str:
        experiment_id = self._experiment(client)
        found = client.search_runs([experiment_id], filter_string="tags.`sweeper.role` = 'study'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
        else:
            tags = {**self.tags, "sweeper.study": self.study.name, "sweeper.role": "study"}
            # The study began before this thread came to make its run.
            began_ms = int(self.study.created_at * 1000)
            run = client.create_run(experiment_id, start_time=began_ms, tags=tags, run_name=self.study.name)
            run_id = str(run.info.run_id)
        client.log_text(run_id, self.study_text, "study.yaml")
        self.catalog.set_study(self.study.id, run_id=run_id)
        return run_id

    def _experiment(self, client: MlflowClient) -> str:
        if self._experiment_id is None:
            found = client.get_experiment_by_name(self.study.name)
            where = self.settings.artifacts.as_uri() if self.settings.tracking_is_local else None
            self._experiment_id = (
                str(found.experiment_id)
                if found is not None
                else str(client.create_experiment(self.study.name, artifact_location=where))
            )
        return self._experiment_id

    def _open_child(self, trial: TrialRow) -> None:
        from mlflow.entities import Param

        client, parent = self.client, self._open_parent()
        experiment_id = self._experiment(client)
        # Only a process that died can have made a run and not told the catalog.
        found = trial.started_at < self._born_at and client.search_runs(
            [experiment_id], filter_string=f"tags.`sweeper.trial` = '{trial.number}'", max_results=1
        )
        if found:
            run_id = str(found[0].info.run_id)
        else:
            tags = {
                **self.tags,
                "mlflow.parentRunId": parent,
                "sweeper.study": self.study.name,
                "sweeper.role": "trial",
                "sweeper.trial": str(trial.number),
                "seed": str(trial.recipe["seed"]),
            }
            run = client.create_run(
                experiment_id,
                start_time=int(trial.started_at * 1000),
                tags=tags,
                run_name=f"trial {trial.number:04d}",
            )
            run_id = str(run.info.run_id)
        params = [Param(name, str(value)) for name, value in flatten(trial.recipe).items()]
        client.log_batch(run_id, params=params)
        client.log_dict(run_id, trial.recipe, "recipe.yaml")
        self.catalog.set_trial(trial.id, run_id=run_id)

    def _log_epochs(self, owed: Sequence[tuple[str, EpochRow]]) -> None:
        from mlflow.entities import Metric

        by_run: dict[str, list[EpochRow]] = defaultdict(list)
        for run_id, epoch in owed:
            by_run[run_id].append(epoch)
        for run_id, epochs in by_run.items():
            metrics = [
                Metric(name, value, int(epoch.reported_at * 1000), epoch.epoch)
                for epoch in epochs
                for name, value in {**epoch.metrics, "epoch.seconds": epoch.seconds}.items()
            ]
            for start in range(0, len(metrics), BATCH_METRICS):
                self.client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])
            self.catalog.mark_delivered([epoch.id for epoch in epochs])

    def _end_child(self, trial: TrialRow, run_id: str) -> None:
        from mlflow.entities import Metric, RunTag

        client, ended_ms = self.client, int((trial.ended_at or time.time()) * 1000)
        facts = dict(trial.facts)
        traceback = facts.pop("traceback", None)
        if traceback:
            client.log_text(run_id, traceback, "traceback.txt")
        numbers: dict[str, float] = {} if trial.value is None else {"value": trial.value}
        numbers |= facts.pop("weights", {})
        tags = [RunTag("state", trial.state), *[RunTag(name, str(value)) for name, value in facts.items()]]
        if trial.reason:
            tags.append(RunTag("reason", trial.reason[:4900]))
        client.log_batch(
            run_id, metrics=[Metric(name, value, ended_ms, 0) for name, value in numbers.items()], tags=tags
        )
        client.set_terminated(run_id, RUN_STATUS[trial.state], end_time=ended_ms)
        self.catalog.set_trial(trial.id, delivered=True)


def log_model(tracker: Tracker, package: Path, *, name: str, requirements: Sequence[str]) -> str:
    """Log a model package to the study's run, register it and give it the alias ``best``; returns the version.

    The artifact is the package itself (safetensors and JSON) with the `trials` package beside it: loading it runs no
    pickle and needs no sweeper.

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

    try:
        run_id = tracker._open_parent()
        with _mlflow_quiet(), mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="model",
                loader_module="trials.package",
                data_path=str(package),
                code_paths=[str(Path(trials.__file__).parent)],
                pip_requirements=list(requirements),
                signature=_signature(package),
                registered_model_name=name,
            )
        version = str(logged.registered_model_version)
        tracker.client.set_registered_model_alias(name, "best", version)
    except TrackingError:
        raise
    except Exception as error:
        raise _as_tracking_error(tracker.settings, error) from error
    return version


@contextmanager
def _mlflow_quiet() -> Iterator[None]:
    """MLflow prints what it registers and wants an input example: neither is news to whoever runs a study."""
    with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore", category=UserWarning):
        yield


def _signature(package: Path) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from trials.package import describe_arrays

    (in_type, in_shape), (out_type, out_shape) = describe_arrays(package)
    return ModelSignature(
        inputs=Schema([TensorSpec(in_type, (-1, *in_shape))]),
        outputs=Schema([TensorSpec(out_type, (-1, *out_shape))]),
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted paths.

    >>> flatten({"train": {"ema": None, "optimizer": {"lr": 0.1}}})
    {'train.ema': None, 'train.optimizer.lr': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def _as_tracking_error(settings: Settings, error: Exception) -> TrackingError:
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return TrackingError(f"MLflow at {without_password(settings.tracking_uri)}: {without_password(cause)}")
