"""The client of MLflow: how it is connected, kept quiet, and how its errors read."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import SweeperError, TrackingError
from sweeper.settings import Settings, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient


def connect(settings: Settings) -> MlflowClient:
    """A client for the tracking server, or for the local database, which is created if need be.

    Raises:
        TrackingError: it cannot be reached.
    """
    # A dead server would otherwise block a call for minutes, and a call that is repeated unseen, because its answer was
    # lost, may do its work twice: what is owed is kept, and tried again by whoever knows what was tried before.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else a line for each run that ends
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with as_tracking_error(settings):
        import mlflow
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        mlflow.set_tracking_uri(settings.tracking_uri)
        mlflow.set_registry_uri(settings.tracking_uri)
        return MlflowClient(settings.tracking_uri, settings.tracking_uri)


@contextmanager
def as_tracking_error(settings: Settings) -> Iterator[None]:
    """Say what MLflow, or the way to it, raises in one line that holds no password."""
    try:
        yield
    except SweeperError:
        raise
    except Exception as error:
        raise TrackingError(in_one_line(settings, error)) from error


def is_active_run(client: MlflowClient, run_id: str) -> bool:
    """Whether MLflow knows that run, and nobody deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def find_version(
    settings: Settings, client: MlflowClient, name: str, *, alias: str | None = None, version: str | None = None
) -> str | None:
    """The version of a registered model with that alias or number; ``None`` if there is none.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    with as_tracking_error(settings):
        try:
            if alias is not None:
                found = client.get_model_version_by_alias(name, alias)
            else:
                found = client.get_model_version(name, str(version))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
    return str(found.version)


def registered_models(settings: Settings, client: MlflowClient) -> list[str]:
    """The names of the registered models, each with its aliases behind it: ``digits (@best)``.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    with as_tracking_error(settings):
        models = client.search_registered_models()
    return [f"{model.name} ({', '.join(f'@{alias}' for alias in model.aliases) or 'no alias'})" for model in models]


def download_model(settings: Settings, name: str, version: str, to: Path) -> Path | None:
    """The data of a registered pyfunc model, downloaded below ``to``; ``None`` if it is of another flavor.

    Raises:
        TrackingError: MLflow, or the place of its files, cannot be reached.
    """
    with as_tracking_error(settings), quiet():
        from mlflow.artifacts import download_artifacts
        from mlflow.models import Model

        local = Path(download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=str(to)))
        data = Model.load(str(local)).flavors.get("python_function", {}).get("data")
    return None if data is None else local / data


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow prints what it registers and wants an input example: neither is news to whoever runs a study."""
    with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore", category=UserWarning):
        yield


def in_one_line(settings: Settings, error: Exception) -> str:
    """What went wrong, and with which MLflow."""
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "Failed to establish a new connection" in cause:  # what urllib3 and requests wrap around it takes five lines
        cause = f"nothing answers there ({'Connection refused' if 'refused' in cause else 'no connection'})"
    return f"MLflow at {without_password(settings.tracking_uri)}: {without_password(cause)}"
