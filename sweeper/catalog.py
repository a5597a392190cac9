"""The catalog: studies, trials, epochs and weights in SQL. The orchestrator alone writes it.

It is also the outbox of the tracker: rows carry a `delivered` mark, so what MLflow is still owed survives a restart
and is derived, never kept twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Row

from sweeper.errors import StoreError
from sweeper.settings import without_password
from trials.result import EpochReport, WeightsFile

StudyState = Literal["running", "stopped", "finished", "failed"]
TrialState = Literal["waiting", "running", "complete", "pruned", "failed"]
ENDED: tuple[TrialState, ...] = ("complete", "pruned", "failed")

KNOWN_URLS = "expected sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"

REMEDIES = {
    "file is not a database": "move that file away, or choose another SWEEPER_HOME",
    "disk is full": "make room and start again: nothing recorded is lost",
    "unable to open database file": "make the folder writable, or choose another with --home",
    "readonly database": "make the folder writable, or choose another with --home",
    "no such column": "it was made by an older sweeper: choose another folder with --home",
    "Connection refused": "start the server, or correct SWEEPER_DATABASE_URL",
}
"""What to do about the faults that a person meets, by a phrase of the database's own message."""

_schema = sa.MetaData()

# Optuna keeps its tables in the same database, among them `studies` and `trials`: hence the prefix.
_studies = sa.Table(
    "sweeper_studies",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("import_paths", sa.JSON, nullable=False),
    sa.Column("metric", sa.String(64), nullable=False),
    sa.Column("trials_asked", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("winner", sa.JSON(none_as_null=True)),
    sa.Column("run_id", sa.String(64)),
    sa.Column("tracking_uri", sa.Text),
    sa.Column("owner", sa.String(64)),
    sa.Column("owner_host", sa.String(255)),
    sa.Column("owner_machine", sa.String(255)),
    sa.Column("owner_pid", sa.Integer),
    sa.Column("owner_pid_since", sa.Float),
    sa.Column("owner_since", sa.Float),
    sa.Column("heartbeat_at", sa.Float),
)
_trials = sa.Table(
    "sweeper_trials",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.ForeignKey("sweeper_studies.id"), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("params", sa.JSON, nullable=False),
    sa.Column("recipe", sa.JSON, nullable=False),
    sa.Column("value", sa.Float),
    sa.Column("reason", sa.Text),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("run_id", sa.String(64)),
    sa.Column("described", sa.Boolean, nullable=False, default=False),
    sa.Column("files_delivered", sa.Boolean, nullable=False, default=False),
    sa.Column("delivered", sa.Boolean, nullable=False, default=False, index=True),
    sa.UniqueConstraint("study_id", "number"),
)
_epochs = sa.Table(
    "sweeper_epochs",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.ForeignKey("sweeper_trials.id"), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("reported_at", sa.Float, nullable=False),
    sa.Column("delivered", sa.Boolean, nullable=False, default=False, index=True),
    sa.UniqueConstraint("trial_id", "epoch"),
)
_weights = sa.Table(
    "sweeper_weights",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.ForeignKey("sweeper_trials.id"), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.UniqueConstraint("trial_id", "kind"),
)


@dataclass(frozen=True)
class StudyRow:
    """One row of the studies, as it stands."""

    id: int
    name: str
    state: StudyState
    digest: str
    text: str
    metric: str
    trials_asked: int
    created_at: float
    winner: dict[str, Any] | None
    run_id: str | None
    tracking_uri: str | None
    """Which MLflow ``run_id`` is of, without a password."""
    owner: str | None
    owner_host: str | None
    owner_machine: str | None
    owner_pid: int | None
    owner_pid_since: float | None
    owner_since: float | None
    heartbeat_at: float | None
    file: str
    """Where its study.yaml was when it was last started."""
    import_paths: list[str]
    """The folders from which its own modules were imported then."""


@dataclass(frozen=True)
class TrialRow:
    """One trial, without its epochs and weights."""

    id: int
    study_id: int
    number: int
    state: TrialState
    params: dict[str, Any]
    recipe: dict[str, Any]
    value: float | None
    reason: str | None
    facts: dict[str, Any]
    started_at: float
    ended_at: float | None
    run_id: str | None
    described: bool
    """Whether the tracker has heard of its recipe."""
    files_delivered: bool
    """Whether the tracker has its recipe as a file, and the traceback if it failed."""
    delivered: bool
    """Whether the tracker has heard of its end."""

    @property
    def is_extended(self) -> bool:
        """Whether epochs were added to it after it had finished."""
        return bool(self.recipe.get("extensions"))


@dataclass(frozen=True)
class EpochRow:
    """One reported epoch of a trial."""

    id: int
    trial_id: int
    epoch: int
    metrics: dict[str, float]
    seconds: float
    reported_at: float
    delivered: bool


@dataclass(frozen=True)
class WeightsRow:
    """One kept file of weights; ``path`` is relative to the study's folder."""

    trial: int
    kind: str
    path: str
    value: float
    metrics: dict[str, float]
    epoch: int
    bytes: int
    sha256: str


class Catalog:
    """All that is known about the studies of one home.

    Raises:
        StoreError: the database cannot be reached or written.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = url
        with _as_store_error(url):
            if url.startswith("sqlite:///"):
                path = Path(url.removeprefix("sqlite:///"))
                if create:
                    path.parent.mkdir(parents=True, exist_ok=True)
                elif not path.exists():
                    # Looking must leave no trace: an empty database in memory answers like an empty home.
                    url = "sqlite://"
            try:
                # An idle connection may be cut off by whatever lies between; asked first, it is made anew.
                self._engine = sa.create_engine(url, pool_pre_ping=True)
            except (ImportError, ValueError, sa.exc.ArgumentError) as error:
                raise StoreError(f"database {without_password(url)}: {error}; {KNOWN_URLS}") from error
            if url.startswith("sqlite"):
                event.listen(self._engine, "connect", use_wal)
            if create or not sa.inspect(self._engine).has_table(_studies.name):
                _schema.create_all(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with _as_store_error(self.url), self._engine.begin() as connection:
            yield connection

    def _rows(self, query: sa.Select[Any]) -> Sequence[Row[Any]]:
        with _as_store_error(self.url), self._engine.connect() as connection:
            return connection.execute(query).all()

    # -- studies ------------------------------------------------------------------------------------------------

    def add_study(
        self,
        name: str,
        *,
        digest: str,
        text: str,
        metric: str,
        trials_asked: int,
        file: str = "study.yaml",
        import_paths: Sequence[str] = (),
    ) -> StudyRow:
        """The study of that name, made now if there is none."""
        found = self.find_study(name)
        if found is not None:
            return found
        try:
            with self._write() as connection:
                connection.execute(
                    _studies.insert().values(
                        name=name,
                        state="stopped",
                        digest=digest,
                        text=text,
                        file=file,
                        import_paths=list(import_paths),
                        metric=metric,
                        trials_asked=trials_asked,
                        created_at=time.time(),
                    )
                )
        except StoreError as error:
            if not isinstance(error.__cause__, sa.exc.IntegrityError):
                raise
            # Another orchestrator made it between our look and our insert; the lease decides who runs it.
        return self.study(name)

    def find_study(self, name: str) -> StudyRow | None:
        rows = self._rows(sa.select(_studies).where(_studies.c.name == name))
        return _study(rows[0]) if rows else None

    def study(self, name: str) -> StudyRow:
        """The study of that name.

        Raises:
            StoreError: there is none; the message lists those there are.
        """
        found = self.find_study(name)
        if found is None:
            names = ", ".join(study.name for study in self.studies()) or "none yet"
            raise StoreError(f"no study named {name!r} here; studies: {names}")
        return found

    def studies(self) -> list[StudyRow]:
        """All studies, oldest first."""
        return [_study(row) for row in self._rows(sa.select(_studies).order_by(_studies.c.id))]

    def set_study(self, study_id: int, **columns: Any) -> None:
        """Write columns of a study: ``state``, ``winner``, ``run_id``, ``tracking_uri``."""
        with self._write() as connection:
            connection.execute(_studies.update().where(_studies.c.id == study_id).values(**columns))

    def reset_study(self, study_id: int) -> None:
        """Forget all trials of a study, as if it had just been added; its owner stays."""
        trials = sa.select(_trials.c.id).where(_trials.c.study_id == study_id)
        with self._write() as connection:
            connection.execute(_epochs.delete().where(_epochs.c.trial_id.in_(trials)))
            connection.execute(_weights.delete().where(_weights.c.trial_id.in_(trials)))
            connection.execute(_trials.delete().where(_trials.c.study_id == study_id))
            connection.execute(
                _studies.update()
                .where(_studies.c.id == study_id)
                .values(state="stopped", winner=None, run_id=None, created_at=time.time())
            )

    def swap_owner(self, study_id: int, *, expected: str | None, **columns: Any) -> bool:
        """Write the owner's columns if the owner still is ``expected``; say whether it was."""
        with self._write() as connection:
            done = connection.execute(
                _studies.update()
                .where(_studies.c.id == study_id, _studies.c.owner.is_not_distinct_from(expected))
                .values(**columns)
            )
            return done.rowcount == 1

    # -- trials -------------------------------------------------------------------------------------------------

    def add_trial(
        self, study_id: int, number: int, *, params: Mapping[str, Any], recipe: Mapping[str, Any]
    ) -> TrialRow:
        """Record that a trial starts."""
        with self._write() as connection:
            connection.execute(
                _trials.insert().values(
                    study_id=study_id,
                    number=number,
                    state="running",
                    params=dict(params),
                    recipe=dict(recipe),
                    facts={},
                    started_at=time.time(),
                )
            )
        return self.trial(study_id, number)

    def set_trial(self, trial_id: int, **columns: Any) -> None:
        """Write columns of a trial: ``state``, ``run_id`` and what the tracker has heard."""
        with self._write() as connection:
            connection.execute(_trials.update().where(_trials.c.id == trial_id).values(**columns))

    def end_trial(
        self,
        trial_id: int,
        state: TrialState,
        *,
        value: float | None = None,
        reason: str | None = None,
        facts: Mapping[str, Any] | None = None,
        weights: Sequence[tuple[WeightsFile, str, float]] = (),
    ) -> None:
        """Record how a trial ended, and in the same transaction the weights it leaves.

        Args:
            value: what the sampler is told: the best value on the metric.
            facts: what else is known of it: parameters, seconds, device, notes.
            weights: file, path relative to the study's folder, value on the metric.
        """
        with self._write() as connection:
            connection.execute(
                _trials.update()
                .where(_trials.c.id == trial_id)
                .values(
                    state=state,
                    value=value,
                    reason=reason,
                    facts=dict(facts or {}),
                    ended_at=time.time(),
                    delivered=False,
                )
            )
            if weights:
                connection.execute(_weights.delete().where(_weights.c.trial_id == trial_id))
                connection.execute(
                    _weights.insert(),
                    [
                        {
                            "trial_id": trial_id,
                            "kind": file.kind,
                            "path": path,
                            "value": worth,
                            "metrics": file.metrics,
                            "epoch": file.epoch,
                            "bytes": file.bytes,
                            "sha256": file.sha256,
                        }
                        for file, path, worth in weights
                    ],
                )

    def extend_trials(self, study_id: int, recipes: Mapping[int, Mapping[str, Any]]) -> None:
        """Record that complete trials go on, and with that their study: all of it, or nothing.

        Their weights stay until there are others. What the tracker knows of the trials and of the study's end is out of
        date.

        Args:
            recipes: from a trial's id to its recipe with one more extension.
        """
        unheard = {"files_delivered": False, "delivered": False}
        with self._write() as connection:
            for trial_id, recipe in recipes.items():
                connection.execute(
                    _trials.update()
                    .where(_trials.c.id == trial_id)
                    .values(state="waiting", recipe=dict(recipe), reason=None, **unheard)
                )
            connection.execute(
                _studies.update()
                .where(_studies.c.id == study_id)
                .values(state="stopped", winner=_winner_without_model(connection, study_id))
            )

    def drop_extension(self, trial: TrialRow, reason: str) -> None:
        """Record that a trial's newest extension failed: it is the complete trial again that it was before."""
        recipe = {**trial.recipe, "extensions": trial.recipe["extensions"][:-1]}
        self.set_trial(trial.id, state="complete", recipe=recipe, reason=reason, files_delivered=False, delivered=False)

    def trial(self, study_id: int, number: int) -> TrialRow:
        """One trial by its number.

        Raises:
            StoreError: there is none.
        """
        rows = self._rows(sa.select(_trials).where(_trials.c.study_id == study_id, _trials.c.number == number))
        if not rows:
            raise StoreError(f"trial {number} is not in the catalog")
        return TrialRow(**rows[0]._mapping)

    def trials(self, study_id: int) -> list[TrialRow]:
        """All trials of a study by number."""
        query = sa.select(_trials).where(_trials.c.study_id == study_id).order_by(_trials.c.number)
        return [TrialRow(**row._mapping) for row in self._rows(query)]

    def count_trials(self, study_id: int) -> dict[TrialState, int]:
        """How many trials are in each state."""
        query = (
            sa.select(_trials.c.state, sa.func.count().label("n"))
            .where(_trials.c.study_id == study_id)
            .group_by(_trials.c.state)
        )
        return {row.state: row.n for row in self._rows(query)}

    # -- epochs and weights -------------------------------------------------------------------------------------

    def add_epoch(self, trial_id: int, report: EpochReport) -> bool:
        """Record a report; ``False`` if that epoch of that trial is known already."""
        try:
            with self._write() as connection:
                connection.execute(
                    _epochs.insert().values(
                        trial_id=trial_id,
                        epoch=report.epoch,
                        metrics=report.metrics,
                        seconds=report.seconds,
                        reported_at=time.time(),
                    )
                )
        except StoreError as error:
            if isinstance(error.__cause__, sa.exc.IntegrityError):
                return False
            raise
        return True

    def epochs(self, study_id: int) -> dict[int, list[EpochRow]]:
        """The epochs of all trials of a study: trial id -> epochs in order."""
        query = (
            sa.select(_epochs)
            .join(_trials, _trials.c.id == _epochs.c.trial_id)
            .where(_trials.c.study_id == study_id)
            .order_by(_epochs.c.trial_id, _epochs.c.epoch)
        )
        grouped: dict[int, list[EpochRow]] = {}
        for row in self._rows(query):
            grouped.setdefault(row.trial_id, []).append(EpochRow(**row._mapping))
        return grouped

    def weights(self, study_id: int, *, of: TrialState | None = None) -> list[WeightsRow]:
        """All kept weights of a study, or those of its trials in one state, in the order of trials.

        A trial that is being extended has those of before.
        """
        query = (
            sa.select(_trials.c.number.label("trial"), *[c for c in _weights.c if c.name not in ("id", "trial_id")])
            .join(_weights, _trials.c.id == _weights.c.trial_id)
            .where(_trials.c.study_id == study_id, _trials.c.state == of if of is not None else sa.true())
            .order_by(_trials.c.number, _weights.c.id)
        )
        return [WeightsRow(**row._mapping) for row in self._rows(query)]

    # -- what the tracker is owed -------------------------------------------------------------------------------

    def owed_trials(self, study_id: int) -> list[TrialRow]:
        """Trials that have no run yet, or whose recipe or end the tracker has not heard of."""
        query = (
            sa.select(_trials)
            .where(
                _trials.c.study_id == study_id,
                sa.or_(
                    _trials.c.run_id.is_(None),
                    ~_trials.c.described,
                    sa.and_(_trials.c.state.in_(ENDED), ~_trials.c.delivered),
                ),
            )
            .order_by(_trials.c.number)
        )
        return [TrialRow(**row._mapping) for row in self._rows(query)]

    def owed_files(self, study_id: int) -> list[TrialRow]:
        """Trials with a run, whose files the tracker does not have."""
        query = (
            sa.select(_trials)
            .where(_trials.c.study_id == study_id, _trials.c.run_id.is_not(None), ~_trials.c.files_delivered)
            .order_by(_trials.c.number)
        )
        return [TrialRow(**row._mapping) for row in self._rows(query)]

    def owed_epochs(self, study_id: int, most: int) -> list[tuple[str, EpochRow]]:
        """Epochs not delivered yet, oldest first, each with the run of its trial."""
        query = (
            sa.select(_trials.c.run_id, _epochs)
            .join(_trials, _trials.c.id == _epochs.c.trial_id)
            .where(_trials.c.study_id == study_id, ~_epochs.c.delivered, _trials.c.run_id.is_not(None))
            .order_by(_epochs.c.id)
            .limit(most)
        )
        return [
            (row.run_id, EpochRow(**{key: value for key, value in row._mapping.items() if key != "run_id"}))
            for row in self._rows(query)
        ]

    def owes(self, study_id: int) -> bool:
        """Whether the tracker has not heard of everything yet."""
        undelivered = (
            sa.select(_epochs.c.id)
            .join(_trials, _trials.c.id == _epochs.c.trial_id)
            .where(_trials.c.study_id == study_id, ~_epochs.c.delivered)
            .limit(1)
        )
        return bool(self.owed_trials(study_id) or self.owed_files(study_id) or self._rows(undelivered))

    def owe_again(self, study_id: int, tracking_uri: str) -> None:
        """Forget what was delivered, the model too: the tracker at ``tracking_uri`` has heard of nothing yet."""
        trials = sa.select(_trials.c.id).where(_trials.c.study_id == study_id)
        unheard = {"run_id": None, "described": False, "files_delivered": False, "delivered": False}
        with self._write() as connection:
            connection.execute(
                _studies.update()
                .where(_studies.c.id == study_id)
                .values(
                    run_id=None,
                    tracking_uri=tracking_uri,
                    winner=_winner_without_model(connection, study_id),
                )
            )
            connection.execute(_trials.update().where(_trials.c.study_id == study_id).values(unheard))
            connection.execute(_epochs.update().where(_epochs.c.trial_id.in_(trials)).values(delivered=False))

    def mark_delivered(self, epoch_ids: Sequence[int]) -> None:
        """Remember that these epochs have reached the tracker."""
        with self._write() as connection:
            connection.execute(_epochs.update().where(_epochs.c.id.in_(epoch_ids)).values(delivered=True))


def _winner_without_model(connection: Connection, study_id: int) -> dict[str, Any] | None:
    """A study's winner as one whose model is still to be handed over."""
    winner = connection.scalar(sa.select(_studies.c.winner).where(_studies.c.id == study_id))
    return None if winner is None else {key: value for key, value in winner.items() if key != "model_version"}


def use_wal(connection: Any, _record: Any) -> None:
    """Set up a SQLite connection: readers beside one writer, patience instead of "database is locked".

    WAL with ``synchronous=NORMAL`` survives ``kill -9`` of the process; only a power cut can lose the last commits
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _study(row: Row[Any]) -> StudyRow:
    return StudyRow(**row._mapping)


def store_error(url: str, error: Exception) -> StoreError:
    """What went wrong with the database, in one line and without its password."""
    cause = (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]
    return StoreError(f"database {without_password(url)}: {cause}{_remedy(cause)}")


def _remedy(cause: str) -> str:
    return next((f"; {remedy}" for sign, remedy in REMEDIES.items() if sign in cause), "")


@contextmanager
def _as_store_error(url: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise store_error(url, error) from error
