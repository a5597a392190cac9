"""One database: how it is reached, and what is said where it fails."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Row

from sweeper.catalog import tables
from sweeper.catalog.faults import is_no_space, is_transient
from sweeper.catalog.versions import bring_up_to_date
from sweeper.errors import StoreError, StudyHeld
from sweeper.settings import without_password

KNOWN_URLS = "expected sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"

REMEDIES = {
    "file is not a database": "move that file away, or choose another SWEEPER_HOME",
    "disk is full": "make room and start again: nothing recorded is lost",
    "unable to open database file": "make the folder writable, or choose another with --home",
    "readonly database": "make the folder writable, or choose another with --home",
    "Connection refused": "start the server, or correct SWEEPER_DATABASE_URL",
}
"""What to do about the faults that a person meets, by a phrase of the database's own message."""


CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""How soon a server that has vanished is noticed; seconds but for the last, which is milliseconds. A URL may say others
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS)."""

BUSY_SECONDS = 30
"""How long SQLite waits for whoever writes."""

BOUNDS_SECONDS = {"statement_timeout": 60, "lock_timeout": 30, "idle_in_transaction_session_timeout": 30}
"""How long PostgreSQL lets one of our sessions work, wait for a lock, or sit on one: an orchestrator that is frozen in
the midst of a write must not keep the study from whoever takes it over."""


class Database:
    """The database of the catalog.

    Raises:
        StoreError: the database cannot be reached or written.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = url
        self._fence: tuple[int, str] | None = None
        with as_store_error(url):
            if url.startswith("sqlite:///"):
                path = Path(url.removeprefix("sqlite:///"))
                if create:
                    path.parent.mkdir(parents=True, exist_ok=True)
                elif not path.exists():
                    # Looking must leave no trace: an empty database in memory answers like an empty home.
                    url = "sqlite://"
            try:
                # An idle connection may be cut off by whatever lies between; asked first, it is made anew.
                self._engine = sa.create_engine(url, pool_pre_ping=True, connect_args=connect_args(url))
            except (ImportError, ValueError, sa.exc.ArgumentError) as error:
                raise StoreError(
                    f"database {without_password(url)}: {without_password(str(error))}; {KNOWN_URLS}"
                ) from error
            if url.startswith("sqlite"):
                event.listen(self._engine, "connect", use_wal)
            else:
                event.listen(self._engine, "connect", bound_waiting)
            try:
                bring_up_to_date(self._engine, self.url)
            except BaseException:
                self._engine.dispose()
                raise

    @property
    def place(self) -> str:
        """Where it is, for people: a file, or a URL without its password."""
        return without_password(self.url.removeprefix("sqlite:///"))

    def close(self) -> None:
        self._engine.dispose()

    def fence(self, study_id: int, owner: str) -> None:
        """From now on write nothing unless ``owner`` still owns the study: each write asks, in its own transaction."""
        self._fence = (study_id, owner)

    @contextmanager
    def write(self, *, fenced: bool = True) -> Iterator[Connection]:
        """One transaction, all of which is written or nothing.

        Raises:
            StudyHeld: the study has been taken over since it was fenced.
            StoreError: the database cannot be written.
        """
        with as_store_error(self.url), self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                # The right to write is taken before the first look, so that nothing that was seen can change.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            if fenced and self._fence is not None:
                _check_owner(connection, *self._fence)
            yield connection

    def rows(self, query: sa.Select[Any]) -> Sequence[Row[Any]]:
        with as_store_error(self.url), self._engine.connect() as connection:
            return connection.execute(query).all()


def _check_owner(connection: Connection, study_id: int, owner: str) -> None:
    # On PostgreSQL the row stays locked against a new owner until the transaction ends. NO KEY UPDATE and not SHARE:
    # two writers of one study that both share it and then both write to it would wait for each other.
    columns = tables.studies.c
    query = sa.select(columns.name, columns.owner, columns.owner_pid, columns.owner_host)
    study = connection.execute(query.where(columns.id == study_id).with_for_update(key_share=True)).one_or_none()
    if study is None:
        raise StudyHeld("the study was removed while this process ran it")
    if study.owner is None:
        raise StudyHeld(f"study {study.name!r} is not held by this process any more")
    if study.owner != owner:
        raise StudyHeld(f"study {study.name!r} was taken over by process {study.owner_pid} on {study.owner_host}")


def use_wal(connection: Any, _record: Any) -> None:
    """Set up a SQLite connection: readers beside one writer, patience instead of "database is locked".

    WAL with ``synchronous=NORMAL`` survives ``kill -9`` of the process; only a power cut can lose the last commits
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    _switch_to_wal(cursor)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    # Where several processes open a new database at once, SQLite refuses the switch at once instead of waiting for
    # ``busy_timeout``: two that hold the file for reading and both want to write it would wait for each other.
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(0.01)


def bound_waiting(connection: Any, _record: Any) -> None:
    """Set up a PostgreSQL connection: nothing waits for ever."""
    for name, seconds in BOUNDS_SECONDS.items():
        connection.execute(f"SET {name} = '{seconds}s'")
    connection.commit()


def connect_args(url: str) -> dict[str, int]:
    """How a connection to the database is to be made: what `CONNECT` says and the URL itself does not."""
    if url.startswith("sqlite"):
        return {}
    said = sa.make_url(url).query
    return {name: value for name, value in CONNECT.items() if name not in said}


def store_error(url: str, error: Exception) -> StoreError:
    """What went wrong with the database, in one line and without its password."""
    cause = (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]
    return StoreError(
        f"database {without_password(url)}: {without_password(cause)}{_remedy(cause)}",
        transient=is_transient(error),
        no_space=is_no_space(error),
    )


def _remedy(cause: str) -> str:
    return next((f"; {remedy}" for sign, remedy in REMEDIES.items() if sign in cause), "")


@contextmanager
def as_store_error(url: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise store_error(url, error) from error
