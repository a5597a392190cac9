"""A model as MLflow keeps it: the winner's in the study's run, registered under its name; or in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.mlflow_client import as_tracking_error, quiet

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

    from sweeper.tracking import Tracker

WEIGHTS_TAG = "sweeper.weights_sha256"
"""The tag of a registered version that says which weights it is."""


def log_model(tracker: Tracker, package: Path, *, name: str, requirements: Sequence[str]) -> str:
    """Log a model package to the study's run, register it and give it the alias ``best``; returns the version.

    The artifact is the package itself (safetensors and JSON, the user's own modules where those are single files) with
    the `trials` package beside it: loading it runs no pickle and needs no sweeper. Weights that were registered from
    that run before are not registered again.

    Args:
        tracker: holds the client and the parent run.
        package: a folder written by `trials.package.write_package`.
        name: the registered model's name: the study's.
        requirements: pip requirements of the `trials` package.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    import mlflow

    sha256 = json.loads((package / "package.json").read_bytes())["weights_sha256"]
    with as_tracking_error(tracker.settings):
        run_id = tracker.open_parent()
        version = _registered_version(tracker.client, name, run_id, sha256)
        if version is None:
            with quiet(), mlflow.start_run(run_id=run_id):
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    registered_model_name=name,
                    tags={WEIGHTS_TAG: sha256},
                    **_content(package, requirements),
                )
            version = str(logged.registered_model_version)
        tracker.client.set_registered_model_alias(name, "best", version)
    return version


def save_model(package: Path, out: Path, requirements: Sequence[str]) -> None:
    """Make ``out`` a folder as MLflow keeps models, of the same content as :func:`log_model` logs, with no server."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    with quiet():
        mlflow.pyfunc.save_model(str(out), **_content(package, requirements))


def answers_of_model(folder: Path, raw: Any) -> np.ndarray:
    """What MLflow makes a model that :func:`save_model` wrote answer to raw examples."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    with quiet():
        answers: np.ndarray = mlflow.pyfunc.load_model(str(folder)).predict(raw)
    return answers


def _content(package: Path, requirements: Sequence[str]) -> dict[str, Any]:
    """The parts of a model: the package, the code that loads it, what that needs, what it takes and gives."""
    import trials

    return {
        "loader_module": "trials.package",
        "data_path": str(package),
        "code_paths": [str(Path(trials.__file__).parent)],
        "pip_requirements": list(requirements),
        "signature": _signature(package),
    }


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
