"""What another terminal asks of a study. Its orchestrator is a thread here that holds the lease and obeys."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from sweeper import control
from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import StoreError
from sweeper.lease import Lease
from sweeper.settings import Settings, load_settings

NAME = "small"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LOOK_SECONDS", 0.01)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with one study that is stopped."""
    for variable in ("SWEEPER_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path))
    settings = load_settings()
    catalog = Catalog(settings.database_url)
    catalog.add_study(NAME, digest="d", text="", metric="validation.accuracy", trials_asked=4, file="/a/study.yaml")
    catalog.close()
    return settings


Said = Callable[[], str]


@pytest.fixture
def console() -> tuple[Console, Said]:
    out = io.StringIO()
    return Console(file=out, width=400), out.getvalue


@contextmanager
def _orchestrator(settings: Settings, state: str, ends_as: str = "stopped", obeys: bool = True) -> Iterator[None]:
    """Holds the study; pauses, goes on and stops as it is asked, unless it is deaf."""
    catalog, done = Catalog(settings.database_url), threading.Event()
    ready = threading.Event()

    def run() -> None:
        with Lease(catalog, NAME):
            study_id = catalog.study(NAME).id
            catalog.set_study(study_id, state=state)
            ready.set()
            while not done.wait(0.01):
                request = catalog.study(NAME).request if obeys else None
                if request == "stop":
                    catalog.set_study(study_id, state=ends_as, request=None)
                    return
                if obeys:
                    catalog.set_study(study_id, state="paused" if request == "pause" else "running")

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()
        catalog.close()


def _row(settings: Settings):  # type: ignore[no-untyped-def]
    catalog = Catalog(settings.database_url)
    study = catalog.study(NAME)
    catalog.close()
    return study


def _never(study: StudyRow) -> int:
    raise AssertionError("nothing is to be started here")


def test_a_study_that_runs_is_stopped(settings: Settings, console: tuple[Console, Said]) -> None:
    with _orchestrator(settings, "running"):
        assert control.stop(NAME, settings, console[0]) == 0
        assert _row(settings).owner is None
    assert console[1]().splitlines() == [
        f"waiting for study 'small' on {_row(settings).owner_host} to stop",
        "study 'small' stopped; go on with: sweeper start /a/study.yaml",
    ]


def test_a_study_that_ends_while_it_is_stopped_says_so(settings: Settings, console: tuple[Console, Said]) -> None:
    with _orchestrator(settings, "running", ends_as="finished"):
        assert control.stop(NAME, settings, console[0]) == 0
    assert console[1]().splitlines()[-1] == "study 'small' stopped; it is finished"


@pytest.mark.parametrize("ask", [control.stop, control.pause])
def test_what_does_not_run_is_left_as_it_is(
    ask: Callable[..., int], settings: Settings, console: tuple[Console, Said]
) -> None:
    assert ask(NAME, settings, console[0]) == 0
    assert console[1]() == "study 'small' does not run; go on with: sweeper start /a/study.yaml\n"
    assert _row(settings).request is None


@pytest.mark.parametrize("ask", [control.stop, control.pause])
def test_one_that_does_not_obey_is_named_and_stays_asked(
    ask: Callable[..., int], settings: Settings, console: tuple[Console, Said]
) -> None:
    with _orchestrator(settings, "running", obeys=False):
        study = _row(settings)
        assert ask(NAME, settings, console[0], patience_seconds=0.0) == 1
        assert _row(settings).request == ask.__name__
    assert console[1]().splitlines()[-1] == (
        f"study 'small' was asked to {ask.__name__} and has not yet, after 0 s: process {study.owner_pid} on "
        f"{study.owner_host} still has it (running); it stays asked, look again with: sweeper show small"
    )


def test_a_paused_study_goes_on_where_it_waits(settings: Settings, console: tuple[Console, Said]) -> None:
    with _orchestrator(settings, "running"):
        assert control.pause(NAME, settings, console[0]) == 0
        assert (_row(settings).state, _row(settings).request) == ("paused", "pause")
        assert console[1]().splitlines()[-1] == (
            "study 'small' is paused, its workers are free; go on: sweeper resume small"
        )
        assert control.resume(NAME, settings, console[0], _never) == 0
        assert (_row(settings).state, _row(settings).request) == ("running", None)
        assert console[1]().splitlines()[-1] == "study 'small' goes on where it was started"
        before = len(console[1]())
        assert control.resume(NAME, settings, console[0], _never) == 0
        assert console[1]()[before:] == "study 'small' runs already\n"


def test_a_study_that_is_being_stopped_is_neither_paused_nor_resumed(
    settings: Settings, console: tuple[Console, Said]
) -> None:
    with _orchestrator(settings, "running", obeys=False):
        assert control.stop(NAME, settings, console[0], patience_seconds=0.0) == 1
        assert control.pause(NAME, settings, console[0]) == 0
        assert control.resume(NAME, settings, console[0], _never) == 1
        assert _row(settings).request == "stop"


@pytest.mark.parametrize("state", ["paused", "stopped", "running"])
def test_a_study_that_nobody_runs_goes_on_here(state: str, settings: Settings, console: tuple[Console, Said]) -> None:
    """Paused by a full disk, stopped, or left by an orchestrator that died."""
    catalog = Catalog(settings.database_url)
    catalog.set_study(catalog.study(NAME).id, state=state)
    catalog.close()
    started: list[str] = []

    def go_on(study: StudyRow) -> int:
        started.append(study.file)
        return 7

    assert control.resume(NAME, settings, console[0], go_on) == 7
    assert started == ["/a/study.yaml"]
    assert console[1]() == "nobody runs study 'small'; it goes on here\n"


def test_a_finished_study_is_not_resumed(settings: Settings, console: tuple[Console, Said]) -> None:
    catalog = Catalog(settings.database_url)
    catalog.set_study(catalog.study(NAME).id, state="finished")
    catalog.close()
    assert control.resume(NAME, settings, console[0], _never) == 0
    assert console[1]() == "study 'small' is finished; nothing to resume\n"


def test_an_unknown_study_is_named_with_those_there_are(settings: Settings, console: tuple[Console, Said]) -> None:
    for ask in (
        lambda: control.stop("smal", settings, console[0]),
        lambda: control.pause("smal", settings, console[0]),
        lambda: control.resume("smal", settings, console[0], _never),
    ):
        with pytest.raises(StoreError, match="no study named 'smal' here; studies: small"):
            ask()
