"""What a study left behind, read from the outside: SQL on the catalog, on Optuna's tables and on MLflow's store, and
the files. Nothing of the product is imported: a fault in how it reads its own records must not hide here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
Values = dict[int, float]
"""From an epoch to a number."""


@dataclass(frozen=True)
class Place:
    """Where a study and all that is known of it lie."""

    home: Path
    study: str
    database_url: str
    """The catalog and Optuna's history: `sqlite:///PATH` or `postgresql://...`."""
    mlflow_store: Path
    """The SQLite file behind the MLflow server."""
    trained: Path
    """The log that the study's own model writes: a line for each batch that it trains on."""

    @property
    def folder(self) -> Path:
        return self.home / "studies" / self.study


@dataclass(frozen=True)
class CatalogRecords:
    """What the catalog says of one study."""

    study: dict[str, Any]
    trials: dict[int, dict[str, Any]]
    epochs: dict[int, dict[int, dict[str, Any]]]
    """By trial and epoch."""
    weights: Rows


@dataclass(frozen=True)
class OptunaTrial:
    """One trial of Optuna's history."""

    id: int
    number: int
    state: str
    value: float | None
    reports: Values
    params: dict[str, Any]


@dataclass(frozen=True)
class MlflowRun:
    """One run of MLflow."""

    id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, dict[int, list[tuple[float, int]]]]
    """By name and step: all values with the time of each in milliseconds, one if nothing is there twice."""


@dataclass(frozen=True)
class ModelVersion:
    """One registered version of the study's model."""

    version: str
    run_id: str
    weights_sha256: str | None
    aliases: tuple[str, ...]


def read_catalog(place: Place) -> CatalogRecords | None:
    """The catalog's rows of the study; ``None`` while it knows none."""
    is_file = place.database_url.startswith("sqlite:///")
    if is_file and not Path(place.database_url.removeprefix("sqlite:///")).exists():
        return None
    with _database(place.database_url) as sql:
        if not sql.has("sweeper_studies"):
            return None
        studies = sql.rows("SELECT * FROM sweeper_studies WHERE name = ?", place.study)
        if not studies:
            return None
        study = studies[0]
        trials = sql.rows("SELECT * FROM sweeper_trials WHERE study_id = ? ORDER BY number", study["id"])
        epochs: dict[int, dict[int, dict[str, Any]]] = {trial["number"]: {} for trial in trials}
        joined = "JOIN sweeper_trials t ON t.id = e.trial_id WHERE t.study_id = ?"
        for row in sql.rows(f"SELECT t.number, e.* FROM sweeper_epochs e {joined}", study["id"]):
            epochs.setdefault(row["number"], {})[row["epoch"]] = row
        weights = sql.rows(f"SELECT t.number, e.* FROM sweeper_weights e {joined} ORDER BY e.id", study["id"])
    return CatalogRecords(study, {trial["number"]: trial for trial in trials}, epochs, weights)


def read_optuna(place: Place, history: str) -> list[OptunaTrial]:
    """The trials of Optuna's study of that name, by number."""
    with _database(place.database_url) as sql:
        found = sql.rows(
            "SELECT t.* FROM trials t JOIN studies s ON s.study_id = t.study_id WHERE s.study_name = ? "
            "ORDER BY t.number, t.trial_id",
            history,
        )
        return [_optuna_trial(sql, row) for row in found]


def optuna_studies(place: Place) -> set[str]:
    """The names of Optuna's studies that belong to this one: its own, and what a rebuilding may have left."""
    with _database(place.database_url) as sql:
        names = {row["study_name"] for row in sql.rows("SELECT study_name FROM studies")}
    return {name for name in names if name.partition("@")[0] == place.study}


def _optuna_trial(sql: _Sql, row: dict[str, Any]) -> OptunaTrial:
    values = sql.rows("SELECT * FROM trial_values WHERE trial_id = ?", row["trial_id"])
    reports = sql.rows("SELECT * FROM trial_intermediate_values WHERE trial_id = ?", row["trial_id"])
    params = {}
    for param in sql.rows("SELECT * FROM trial_params WHERE trial_id = ?", row["trial_id"]):
        attributes = json.loads(param["distribution_json"])["attributes"]
        value = param["param_value"]
        params[param["param_name"]] = attributes["choices"][int(value)] if "choices" in attributes else value
    return OptunaTrial(
        id=row["trial_id"],
        number=row["number"],
        state=row["state"],
        value=values[0]["value"] if values else None,
        reports={report["step"]: report["intermediate_value"] for report in reports},
        params=params,
    )


def read_mlflow(place: Place, begun: str) -> list[MlflowRun]:
    """The runs of the study that began then: its own, and those of its trials."""
    with _database(f"sqlite:///{place.mlflow_store}") as sql:
        found = sql.rows(
            "SELECT r.run_uuid, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "WHERE t.key = 'sweeper.begun' AND t.value = ? AND r.lifecycle_stage = 'active'",
            begun,
        )
        return [_mlflow_run(sql, row["run_uuid"], row["status"]) for row in found]


def _mlflow_run(sql: _Sql, run_id: str, status: str) -> MlflowRun:
    metrics: dict[str, dict[int, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for row in sql.rows("SELECT * FROM metrics WHERE run_uuid = ?", run_id):
        metrics[row["key"]][row["step"]].append((row["value"], row["timestamp"]))
    named = {
        table: {row["key"]: row["value"] for row in sql.rows(f"SELECT * FROM {table} WHERE run_uuid = ?", run_id)}
        for table in ("tags", "params")
    }
    return MlflowRun(run_id, status, named["tags"], named["params"], metrics)


def read_versions(place: Place) -> list[ModelVersion]:
    """The registered versions of the study's model."""
    with _database(f"sqlite:///{place.mlflow_store}") as sql:
        tags = sql.rows("SELECT * FROM model_version_tags WHERE name = ?", place.study)
        digests = {row["version"]: row["value"] for row in tags if row["key"] == "sweeper.weights_sha256"}
        aliases = sql.rows("SELECT * FROM registered_model_aliases WHERE name = ?", place.study)
        return [
            ModelVersion(
                version=str(row["version"]),
                run_id=row["run_id"],
                weights_sha256=digests.get(row["version"]),
                aliases=tuple(alias["alias"] for alias in aliases if alias["version"] == row["version"]),
            )
            for row in sql.rows("SELECT * FROM model_versions WHERE name = ?", place.study)
        ]


@dataclass(frozen=True)
class TrainedBatch:
    """A batch that some process trained on: the ``batch``-th that the weights of that trial have seen, from 1."""

    trial: int
    batch: int
    pid: int


def read_trained(place: Place) -> list[TrainedBatch]:
    """All batches so far, in the order in which they were trained."""
    text = place.trained.read_text() if place.trained.exists() else ""
    return [TrainedBatch(*map(int, line.split())) for line in text.splitlines()]


def saved_epochs(place: Place) -> dict[int, int]:
    """The newest epoch that each trial has on the disk under a checkpoint's own name."""
    found: dict[int, int] = {}
    for path in place.folder.glob("trials/*/checkpoints/epoch-*"):
        if (name := re.fullmatch(r"epoch-(\d+)", path.name)) is not None:
            number = int(path.parent.parent.name)
            found[number] = max(found.get(number, 0), int(name[1]))
    return found


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Sql:
    """The few questions asked of either database."""

    def __init__(self, connection: Any, is_sqlite: bool) -> None:
        self._connection, self._is_sqlite = connection, is_sqlite

    def rows(self, query: str, *values: Any) -> Rows:
        cursor = self._connection.execute(query if self._is_sqlite else query.replace("?", "%s"), values)
        names = [column[0] for column in cursor.description]
        return [{name: _plain(name, value) for name, value in zip(names, row, strict=True)} for row in cursor]

    def has(self, table: str) -> bool:
        where = "sqlite_master WHERE name" if self._is_sqlite else "information_schema.tables WHERE table_name"
        return bool(self.rows(f"SELECT 1 AS found FROM {where} = ?", table))


_JSON = {"params", "recipe", "facts", "metrics", "winner", "attempts", "import_paths"}


def _plain(name: str, value: Any) -> Any:
    """A column as Python has it: SQLite keeps JSON as text."""
    return json.loads(value) if name in _JSON and isinstance(value, str) else value


@contextlib.contextmanager
def _database(url: str) -> Iterator[_Sql]:
    if url.startswith("sqlite:///"):
        # Never made by looking.
        file = f"{Path(url.removeprefix('sqlite:///')).as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(file, uri=True, timeout=30.0)) as connection:
            yield _Sql(connection, True)
    else:
        import psycopg

        with psycopg.connect(re.sub(r"^postgresql\+\w+:", "postgresql:", url), autocommit=True) as server:
            yield _Sql(server, False)
