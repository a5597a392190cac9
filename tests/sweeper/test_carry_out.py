"""A study whose surroundings fail one after another, and what it does about each."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeper import carry_out, run
from sweeper.catalog import Catalog, StudyRow
from sweeper.errors import NoRoom, StoreError, WorkersError
from sweeper.in_process import InProcessWorkers
from sweeper.settings import load_settings
from sweeper.start import start
from sweeper.view import LineView
from trials.errors import NoSpace

STUDY = """\
study: small
data: {source: digits}
model: {build: linear}
train: {epochs: 2, optimizer: {name: adam, lr: {log: [0.001, 0.1]}}}
search: {trials: 4, pruner: {name: none}}
"""


def _once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, first: Callable[[], Any]) -> None:
    """Have the first call of a method, or of a module's function, do something else before what it always does."""
    whole = getattr(owner, name)

    def failing(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(owner, name, whole)
        first()
        return whole(*arguments, **named)

    monkeypatch.setattr(owner, name, failing)


def _start(folder: Path) -> tuple[int, list[str]]:
    out = io.StringIO()
    code = start(folder / "study.yaml", load_settings(), Console(file=out, width=200), in_process=True)
    return code, out.getvalue().splitlines()


def _study() -> StudyRow:
    with closing(Catalog(load_settings().database_url)) as catalog:
        return catalog.study("small")


def _ask(request: str | None) -> None:
    with closing(Catalog(load_settings().database_url)) as catalog:
        catalog.set_study(catalog.study("small").id, request=request)


def _raise(error: Exception) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


@pytest.mark.slow
def test_a_study_comes_through_one_mishap_after_another(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(carry_out, "RETRY_SECONDS", 0.0)

    full = StoreError("database sqlite: database or disk is full; make room and start again", no_space=True)
    _once(monkeypatch, Catalog, "add_epoch", _raise(full))
    with pytest.raises(NoRoom) as caught:
        _start(tmp_path)
    assert str(caught.value) == (
        "database sqlite: database or disk is full; nothing is lost and the study is paused; make room, then: "
        "sweeper resume small"
    )
    assert (_study().state, _study().owner) == ("paused", None)

    _ask("pause")  # of an orchestrator that is dead by now
    _once(monkeypatch, Catalog, "end_trial", lambda: _ask("stop"))
    code, said = _start(tmp_path)
    again = f"sweeper start {tmp_path / 'study.yaml'}"
    assert (code, said[-1]) == (130, f"stopped by `sweeper stop`; continue with: {again}")
    assert (_study().state, _study().request) == ("stopped", None)

    away = StoreError("database there: Connection refused", transient=True)
    _once(monkeypatch, Catalog, "add_epoch", _raise(away))
    _once(monkeypatch, Catalog, "end_trial", lambda: _ask("pause"))
    paused: list[str] = []

    def resume(_: float) -> None:
        if _study().request == "pause":
            paused.append(_study().state)
            _ask(None)

    monkeypatch.setattr(carry_out.time, "sleep", resume)
    _once(
        monkeypatch,
        LineView,
        "idle",
        lambda: _once(
            monkeypatch,
            InProcessWorkers,
            "submit",
            lambda: _once(monkeypatch, InProcessWorkers, "wait", _raise(WorkersError("gone"))),
        ),
    )
    code, said = _start(tmp_path)
    assert code == 0
    assert paused == ["paused"]
    for line in (
        "waiting for the database (database there: Connection refused)",
        "the database answers again",
        "paused; go on with: sweeper resume small",
        "going on",
        "gone; starting the workers anew",
    ):
        assert said.count(line) == 1, line
    with closing(Catalog(load_settings().database_url)) as catalog:
        study = catalog.study("small")
        trials, epochs = catalog.trials(study.id), catalog.epochs(study.id)
    assert (study.state, study.request) == ("finished", None)
    assert [(trial.number, trial.state) for trial in trials] == [(number, "complete") for number in range(4)]
    assert [[epoch.epoch for epoch in epochs[trial.id]] for trial in trials] == [[1, 2]] * 4
    assert [attempt["reason"] for trial in trials for attempt in trial.attempts] == ["gone"]


def test_a_disk_that_is_full_when_the_winner_is_packed_pauses_the_study(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    said = "winner: no space left on the disk; nothing saved before is lost; make room, then start again"
    _once(monkeypatch, carry_out, "publish_winner", _raise(NoSpace(said)))
    with pytest.raises(NoRoom) as caught:
        _start(tmp_path)
    assert str(caught.value) == (
        "winner: no space left on the disk; nothing is lost and the study is paused; make room, then: "
        "sweeper resume small"
    )
    assert (_study().state, _study().owner) == ("paused", None)
    assert _start(tmp_path)[0] == 0
