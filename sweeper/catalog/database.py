"""One database: how it is reached, and what is said where it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Row

from sweeper.catalog import tables
from sweeper.errors import StoreError
from sweeper.settings import without_password

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


class Database:
    """The database of the catalog.

    Raises:
        StoreError: the database cannot be reached or written.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = url
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
                self._engine = sa.create_engine(url, pool_pre_ping=True)
            except (ImportError, ValueError, sa.exc.ArgumentError) as error:
                raise StoreError(f"database {without_password(url)}: {error}; {KNOWN_URLS}") from error
            if url.startswith("sqlite"):
                event.listen(self._engine, "connect", use_wal)
            if create or not sa.inspect(self._engine).has_table(tables.studies.name):
                tables.schema.create_all(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with as_store_error(self.url), self._engine.begin() as connection:
            yield connection

    def rows(self, query: sa.Select[Any]) -> Sequence[Row[Any]]:
        with as_store_error(self.url), self._engine.connect() as connection:
            return connection.execute(query).all()


def use_wal(connection: Any, _record: Any) -> None:
    """Set up a SQLite connection: readers beside one writer, patience instead of "database is locked".

    WAL with ``synchronous=NORMAL`` survives ``kill -9`` of the process; only a power cut can lose the last commits
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def store_error(url: str, error: Exception) -> StoreError:
    """What went wrong with the database, in one line and without its password."""
    cause = (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]
    return StoreError(f"database {without_password(url)}: {cause}{_remedy(cause)}")


def _remedy(cause: str) -> str:
    return next((f"; {remedy}" for sign, remedy in REMEDIES.items() if sign in cause), "")


@contextmanager
def as_store_error(url: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise store_error(url, error) from error
