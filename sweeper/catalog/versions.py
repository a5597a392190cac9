"""The schema's version: a new database gets the newest, an older one is brought up to it when it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from sweeper.catalog import tables
from sweeper.errors import StoreError
from sweeper.settings import without_password

FIRST = "0001"
"""The version of a database from before there were versions."""
HEAD = "0004"
"""The newest step in `sweeper.migrations`, written here so that most calls need not load Alembic (0.1 s)."""

UPGRADE_LOCK = 0x73776565706572
"""The advisory lock of PostgreSQL that one upgrade holds: the letters of ``sweeper``."""


def bring_up_to_date(engine: Engine, url: str) -> None:
    """Make the tables, or bring them up to `HEAD`: all in one transaction, and by one process at a time.

    Raises:
        StoreError: a newer sweeper made the database.
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read or written.
    """
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    with _alone(engine) as connection:
        version = _version(connection)  # another process may have been here first
        if version is None:
            tables.schema.create_all(connection)
            _note(connection, HEAD)
        elif version > HEAD:
            raise StoreError(
                f"database {without_password(url)}: made by a newer sweeper (schema {version}, known here up to "
                f"{HEAD}); update sweeper"
            )
        elif version < HEAD:
            _upgrade(connection, version)


def _version(connection: Connection) -> str | None:
    """The version of the tables there are, ``None`` where there are none."""
    inspector = sa.inspect(connection)
    if inspector.has_table(tables.version.name):
        return connection.scalar(sa.select(tables.version.c.version_num))
    return FIRST if inspector.has_table(tables.studies.name) else None


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """One transaction that no other process upgrades or, on SQLite, writes beside."""
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
            yield connection
            connection.commit()
            return
        # A table is altered by making it anew, which the keys of others must not see. This has to be said before the
        # transaction begins (https://www.sqlite.org/lang_altertable.html#otheralter).
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()
        finally:
            connection.rollback()
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")


def _note(connection: Connection, version: str) -> None:
    tables.version.create(connection, checkfirst=True)
    connection.execute(tables.version.insert().values(version_num=version))


def _upgrade(connection: Connection, version: str) -> None:
    from alembic import command
    from alembic.config import Config

    if not sa.inspect(connection).has_table(tables.version.name):
        _note(connection, version)
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "sweeper:migrations")
    command.upgrade(config, HEAD)
