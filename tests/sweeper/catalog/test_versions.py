from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from sweeper.catalog import Catalog, tables
from sweeper.catalog.versions import HEAD
from sweeper.errors import StoreError


@contextmanager
def _connection(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "sweeper:migrations")
    return config


def _migrate(url: str, version: str) -> None:
    """Take Alembic's steps from nothing."""
    with _connection(url) as connection:
        tables.version.create(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def _made_before_versions(url: str) -> None:
    """The database of a sweeper that knew no versions, with a study and a trial."""
    _migrate(url, "0001")
    study = {
        "name": "digits",
        "state": "stopped",
        "digest": "d",
        "text": "t",
        "file": "/a/study.yaml",
        "import_paths": "[]",
        "metric": "validation.accuracy",
        "trials_asked": 3,
        "created_at": 1.5,
    }
    trial = {
        "study_id": 1,
        "number": 0,
        "state": "waiting",
        "params": '{"train.lr": 0.1}',
        "recipe": "{}",
        "facts": "{}",
        "started_at": 2.5,
        "described": False,
        "files_delivered": False,
        "delivered": False,
    }
    epoch = {"trial_id": 1, "epoch": 1, "metrics": "{}", "seconds": 0.5, "reported_at": 3.5, "delivered": False}
    with _connection(url) as connection:
        for table, row in (("sweeper_studies", study), ("sweeper_trials", trial), ("sweeper_epochs", epoch)):
            values = ", ".join(f":{column}" for column in row)
            connection.execute(sa.text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})"), row)
        connection.execute(sa.text("DROP TABLE sweeper_version"))


def _version(url: str) -> str | None:
    with _connection(url) as connection:
        return connection.scalar(sa.text("SELECT version_num FROM sweeper_version"))


def _differences(url: str) -> list[object]:
    """What Alembic would change to come from the database to the tables as the code has them."""
    with _connection(url) as connection:
        ours = {"include_name": lambda name, kind, _: kind != "table" or name in tables.schema.tables}
        context = MigrationContext.configure(connection, opts={"version_table": "sweeper_version", **ours})
        return compare_metadata(context, tables.schema)


def test_the_steps_end_in_the_tables_of_the_code(url: str) -> None:
    _migrate(url, "head")
    assert _differences(url) == []


def test_a_new_database_has_the_newest_version(url: str) -> None:
    Catalog(url).close()
    assert ScriptDirectory.from_config(_config()).get_current_head() == HEAD == _version(url)
    assert _differences(url) == []


def test_an_older_database_is_upgraded_with_what_it_holds(url: str) -> None:
    _made_before_versions(url)
    assert _differences(url) != []
    with closing(Catalog(url, create=False)) as catalog:
        study = catalog.study("digits")
        assert (study.history, study.request, study.beats, study.created_at) == ("digits", None, 0, 1.5)
        trial = catalog.trial(study.id, 0)
        assert (trial.attempts, trial.failure, trial.params) == ([], None, {"train.lr": 0.1})
        assert [epoch.seconds for epoch in catalog.epochs(study.id)[trial.id]] == [0.5]
        with pytest.raises(StoreError, match=r"(?i)foreign key"):
            catalog.add_trial(99, 0, params={}, recipe={})
    assert _version(url) == HEAD
    assert _differences(url) == []


def test_a_database_of_a_newer_sweeper_is_left_alone(url: str) -> None:
    Catalog(url).close()
    with _connection(url) as connection:
        connection.execute(tables.version.update().values(version_num="9999"))
    with pytest.raises(StoreError, match=r"made by a newer sweeper \(schema 9999, known here up to \d{4}\); update"):
        Catalog(url)
    assert _version(url) == "9999"


@pytest.mark.parametrize("older", [False, True], ids=["new", "older"])
def test_of_many_that_open_it_at_once_one_does_the_work(url: str, older: bool) -> None:
    if older:
        _made_before_versions(url)
    start, names, errors = threading.Barrier(6), [], []

    def open_it() -> None:
        start.wait()
        try:
            with closing(Catalog(url)) as catalog:
                names.append([study.name for study in catalog.studies()])
        except Exception as error:  # noqa: BLE001 (told by the assertion)
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names == [["digits"] if older else []] * 6
    assert _version(url) == HEAD
    assert _differences(url) == []


KILLED_AT = """
import os, signal, sys
import sqlalchemy as sa
from sweeper.catalog import Catalog

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def kill(connection, cursor, statement, *rest):
    if statement.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Catalog(sys.argv[1])
"""


@pytest.mark.parametrize("statement", ["UPDATE sweeper_trials", "UPDATE sweeper_version"])
def test_an_upgrade_that_is_killed_leaves_the_older_database(url: str, statement: str) -> None:
    _made_before_versions(url)
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, url, statement], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with _connection(url) as connection:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("sweeper_studies")}
        assert not columns & {"request", "history", "beats"}
        assert not sa.inspect(connection).has_table("sweeper_version")
    with closing(Catalog(url)) as catalog:
        assert catalog.study("digits").history == "digits"
    assert _differences(url) == []


def test_a_database_of_today_is_opened_without_alembic(url: str) -> None:
    Catalog(url).close()
    look = "import sys; from sweeper.catalog import Catalog; Catalog(sys.argv[1]); print('alembic' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", look, url], text=True).strip() == "False"
