from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hooked_training
import pytest
import sqlalchemy as sa
from rich.console import Console

from sweeper.catalog import Catalog, StudyRow, TrialRow
from sweeper.catalog.database import use_wal
from sweeper.errors import StoreError
from sweeper.search import told_values
from sweeper.settings import load_settings
from sweeper.start import start
from trials.result import EpochReport


def _study(catalog: Catalog) -> StudyRow:
    return catalog.add_study("digits", digest="d", text="t", metric="validation.accuracy", trials_asked=3)


def _trial(catalog: Catalog, number: int = 0) -> TrialRow:
    return catalog.add_trial(_study(catalog).id, number, params={}, recipe={})


def _report(epoch: int) -> EpochReport:
    return EpochReport(epoch=epoch, epochs=9, metrics={"validation.accuracy": 0.5}, seconds=1.5)


@pytest.fixture
def server(postgres_server: Any) -> Iterator[Any]:
    yield postgres_server
    postgres_server.start()


def test_a_server_that_crashes_is_a_fault_that_passes(server: Any, postgres_url: str) -> None:
    with closing(Catalog(postgres_url)) as catalog:
        study, trial = _study(catalog), _trial(catalog)
        catalog.swap_owner(study.id, expected=None, owner="me")
        catalog.fence(study.id, "me")
        catalog.add_epoch(trial.id, _report(1))
        calls: list[Callable[[], Any]] = [
            lambda: catalog.add_epoch(trial.id, _report(2)),
            lambda: catalog.study("digits"),
            lambda: catalog.beat(study.id, "me", at=1.0),
            lambda: Catalog(postgres_url),
        ]

        def crash_and_report() -> None:
            with catalog.write() as connection:
                connection.execute(sa.text("UPDATE sweeper_studies SET state = 'failed'"))
                server.crash()
                connection.execute(sa.text("UPDATE sweeper_studies SET request = 'stop'"))

        for call in (crash_and_report, *calls):
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.transient
            assert len(str(caught.value).splitlines()) == 1
        server.start()
        assert catalog.study("digits").state == "stopped", "half a transaction is none"
        assert catalog.add_epoch(trial.id, _report(2))
        assert [epoch.epoch for epoch in catalog.epochs(study.id)[trial.id]] == [1, 2]


class Answering(io.StringIO):
    """What a study says; whatever is asked of the database is done when it says that it waits for it."""

    def __init__(self, bring_back: Callable[[], None]) -> None:
        super().__init__()
        self._bring_back = bring_back

    def write(self, text: str) -> int:
        if "waiting for the database" in text:
            self._bring_back()
        return super().write(text)


@pytest.mark.slow
def test_a_study_outlives_its_database(
    server: Any,
    postgres_url: str,
    home: Path,
    write_study: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []

    def crash_once(report: EpochReport) -> None:
        told.append(report.epoch)
        if len(told) == 3:  # the second trial's first epoch is trained, and not recorded yet
            server.crash()

    monkeypatch.setenv("SWEEPER_DATABASE_URL", postgres_url.replace("postgresql+psycopg://", "postgresql://"))
    monkeypatch.setattr(hooked_training, "before_report", crash_once)
    said = Answering(server.start)
    file = write_study(epochs=2, trials=3)
    code = start(file, load_settings(), Console(file=said, width=200), in_process=True, train="hooked_training:train")
    assert code == 0, said.getvalue()
    assert "waiting for the database" in said.getvalue()
    with closing(Catalog(postgres_url)) as catalog:
        row = catalog.study("small")
        trials, epochs = catalog.trials(row.id), catalog.epochs(row.id)
    assert (row.state, row.owner) == ("finished", None)
    assert [(trial.number, trial.state) for trial in trials] == [(0, "complete"), (1, "complete"), (2, "complete")]
    assert [[epoch.epoch for epoch in epochs[trial.id]] for trial in trials] == [[1, 2]] * 3
    assert told_values(postgres_url, "small") == {trial.number: trial.value for trial in trials}


WRITER = """
import sys
from sweeper.catalog import Catalog
from trials.result import EpochReport

catalog = Catalog(sys.argv[1])
trial = catalog.add_trial(1, int(sys.argv[2]), params={}, recipe={})
for epoch in range(1, 201):
    report = EpochReport(epoch=epoch, epochs=200, metrics={"validation.accuracy": 0.5}, seconds=1.5)
    assert catalog.add_epoch(trial.id, report)
"""


def test_two_processes_write_at_once(url: str) -> None:
    with closing(Catalog(url)) as catalog:
        study = _study(catalog)
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, url, number], stderr=subprocess.PIPE, text=True)
            for number in ("0", "1")
        ]
        assert [writer.communicate()[1] for writer in writers] == ["", ""]
        epochs = catalog.epochs(study.id)
        assert [[epoch.epoch for epoch in rows] for rows in epochs.values()] == [list(range(1, 201))] * 2


def test_two_threads_of_an_orchestrator_do_not_wait_for_each_other_for_ever(url: str) -> None:
    """Both write to the row that the fence looks at, as the loop and the tracker do."""
    with closing(Catalog(url)) as catalog:
        study = _study(catalog)
        catalog.swap_owner(study.id, expected=None, owner="me")
        catalog.fence(study.id, "me")
        errors = []

        def write(column: str) -> None:
            try:
                for number in range(50):
                    catalog.set_study(study.id, **{column: str(number)})
            except StoreError as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(column,)) for column in ("run_id", "text")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        row = catalog.study("digits")
        assert (row.run_id, row.text) == ("49", "49")


def test_a_new_owner_waits_for_the_write_that_was_let_through(url: str) -> None:
    with closing(Catalog(url)) as catalog, closing(Catalog(url)) as other:
        study = _study(catalog)
        catalog.swap_owner(study.id, expected=None, owner="me")
        catalog.fence(study.id, "me")
        order = []

        def take_over() -> None:
            other.swap_owner(study.id, expected="me", owner="another")
            order.append("taken over")

        with catalog.write() as connection:
            taker = threading.Thread(target=take_over)
            taker.start()
            taker.join(0.2)
            connection.execute(sa.text("UPDATE sweeper_studies SET state = 'finished'"))
            order.append("written")
        taker.join()
        assert order == ["written", "taken over"]
        row = catalog.study("digits")
        assert (row.state, row.owner) == ("finished", "another")


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    with closing(Catalog(f"sqlite:///{tmp_path / 'a.db'}")) as catalog:
        study = _study(catalog)

    def fill(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count=1")  # rounded up to what there is

    sa.event.listen(sa.Engine, "connect", fill)
    try:
        with closing(Catalog(f"sqlite:///{tmp_path / 'a.db'}")) as catalog:
            with pytest.raises(StoreError, match="disk is full; make room and start again") as caught:
                catalog.set_study(study.id, text="t" * 100_000)
            assert caught.value.no_space
            assert not caught.value.transient
            assert catalog.study("digits") == study
    finally:
        sa.event.remove(sa.Engine, "connect", fill)


def test_who_opens_a_new_sqlite_database_waits_for_another_that_writes_it(tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other,
        closing(sqlite3.connect(tmp_path / "a.db")) as connection,
    ):
        other.execute("BEGIN IMMEDIATE")
        tries = []

        def let_go_at_the_third(statement: str) -> None:
            if "journal_mode" in statement:
                tries.append(statement)
                if len(tries) == 3:
                    other.execute("COMMIT")

        connection.set_trace_callback(let_go_at_the_third)
        use_wal(connection, None)
        assert len(tries) == 3
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
