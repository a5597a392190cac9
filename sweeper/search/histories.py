"""The histories in the database: how they are reached, opened, and removed."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from sweeper.catalog.database import connect_args, store_error, use_wal
from sweeper.search.methods import PRUNERS
from sweeper.study import Study
from trials.result import METRICS

# Optuna makes its tables where it sees none, without a lock: of two studies that begin at once in a new home, one would
# fail.
TABLES_LOCK = 0x6F7074756E61
"""The advisory lock of PostgreSQL under which the tables are made: the letters of ``optuna``."""
MADE_BY_ANOTHER = ("already exists", "UNIQUE constraint failed")
"""What SQLite says where another process is making them."""
MADE_BY_ANOTHER_PAUSES_SECONDS = (0.5, 1.0, 2.0)


def create_history(study: Study, name: str, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The history of that name, made now if there is none."""
    return optuna.create_study(
        study_name=name,
        storage=storage,
        direction=METRICS[study.search.metric],
        pruner=PRUNERS[type(study.search.pruner)](study.search.pruner, study),
        load_if_exists=True,
    )


def open_history(study: Study, name: str, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The history of that name, made now if there is none, in which the points to start with are queued."""
    history = create_history(study, name, storage)
    for point in study.start_with:
        history.enqueue_trial(point, skip_if_exists=True)
    return history


def forget(name: str, url: str) -> None:
    """Remove all histories of a study, if there are any.

    Raises:
        StoreError: the database cannot be reached.
    """
    forget_others(name, url, keep=None)


def forget_others(name: str, url: str, keep: str | None) -> None:
    """Remove the histories of a study but the one called ``keep``.

    Raises:
        StoreError: the database cannot be reached.
    """
    ours = re.compile(re.escape(name) + r"(@\d+)?")
    with connected(url) as storage:
        for found in storage.get_all_studies():
            if ours.fullmatch(found.study_name) and found.study_name != keep:
                storage.delete_study(found._study_id)


def delete_history(name: str, storage: optuna.storages.BaseStorage) -> None:
    """Remove one history, if there is one of that name."""
    for found in storage.get_all_studies():
        if found.study_name == name:
            storage.delete_study(found._study_id)


def told_values(url: str, history: str) -> dict[int, float]:
    """The values of complete trials as the search was told them, by number; none if there is no such history.

    Raises:
        StoreError: the database cannot be reached.
    """
    with connected(url) as storage:
        ids = {found.study_name: found._study_id for found in storage.get_all_studies()}
        if history not in ids:
            return {}
        complete = storage.get_all_trials(ids[history], deepcopy=False, states=(TrialState.COMPLETE,))
        return {trial.number: trial.value for trial in complete if trial.value is not None}


@contextmanager
def connected(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's tables for a moment.

    Raises:
        StoreError: the database cannot be reached.
    """
    with reaching(url):
        storage = open_storage(url)
        try:
            yield storage
        finally:
            close_storage(storage)


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Connect to Optuna's tables, which are made now if there are none."""
    storage = _connect(url)
    if url.startswith("sqlite"):
        sa.event.listen(storage.engine, "connect", use_wal)
        storage.engine.dispose()  # connections made before the listener lack its settings
    return storage


def _connect(url: str) -> optuna.storages.RDBStorage:
    def connect() -> optuna.storages.RDBStorage:
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "connect_args": connect_args(url)})

    if not url.startswith("sqlite"):
        with _alone(url):
            return connect()
    # Here a lock would keep Optuna out too.
    for pause_seconds in MADE_BY_ANOTHER_PAUSES_SECONDS:
        try:
            return connect()
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if not any(sign in f"{error} {error.__cause__}" for sign in MADE_BY_ANOTHER):
                raise
            time.sleep(pause_seconds)
    return connect()


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Inside, no other process makes Optuna's tables in this PostgreSQL."""
    engine = sa.create_engine(url, connect_args=connect_args(url))
    try:
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(TABLES_LOCK)))
            yield
    finally:
        engine.dispose()


def close_storage(storage: optuna.storages.RDBStorage) -> None:
    """Give the database connections back."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """A stretch of talk with Optuna: its faults as ours, and without its remarks.

    `group` and `constant_liar` are marked experimental; saying so at each proposal helps nobody.
    """
    # Set and never put back: what `catch_warnings` puts back is all of the process's filters, and in another thread the
    # tracker's imports add theirs meanwhile.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise store_error(url, error) from error
    except optuna.exceptions.StorageInternalError as error:
        # What the database said, and with that whether it may come back, is in the error that Optuna wrapped.
        cause = error.__cause__
        inner = cause if isinstance(cause, sa.exc.SQLAlchemyError) else error
        raise store_error(url, inner) from inner


optuna.logging.set_verbosity(optuna.logging.ERROR)
