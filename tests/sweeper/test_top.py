"""What runs now, as the catalog has it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from sweeper import top as module
from sweeper.catalog import Catalog
from sweeper.errors import NoStudy, StoreError
from sweeper.lease import Lease
from sweeper.provenance import host
from sweeper.top import draw, glance, top
from trials.result import EpochReport, WeightsFile

METRIC = "validation.rmse"
NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row was written at `NOW`, and is looked at 90 seconds later."""
    monkeypatch.setattr(module.time, "time", lambda: NOW)


@pytest.fixture
def catalog(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """A study of each kind of trial: a trunk, one complete, one that has reported, one extended, one being made."""
    with closing(Catalog(f"sqlite:///{home / 'sweeper.db'}")) as catalog:
        study = catalog.add_study("houses", digest="d", text="", metric=METRIC, trials_asked=8)
        catalog.add_study("idle", digest="e", text="", metric="validation.accuracy", trials_asked=3)
        recipe = {"train": {"epochs": 12}, "extensions": [], "assembly": None}
        extended = recipe | {"extensions": [{"after_epochs": 12, "epochs": 9}]}
        trunk = catalog.add_trial(study.id, 100_000, params={}, recipe=recipe, role="trunk")
        done = catalog.add_trial(study.id, 0, params={}, recipe=recipe)
        for trial, value in ((trunk, 0.125), (done, 0.5)):
            file = WeightsFile(kind="raw", path="w", metrics={METRIC: value}, epoch=1, bytes=1, sha256="s")
            catalog.end_trial(trial.id, "complete", value=value, weights=[(file, "w", value)])
        for number, made_of in ((1, recipe), (2, extended), (3, recipe | {"assembly": {"members": []}})):
            catalog.add_trial(study.id, number, params={"train.optimizer.lr": 0.25 * number}, recipe=made_of)
        for number, epochs in ((1, (1, 2, 3)), (2, (12, 13))):
            for epoch in epochs:
                metrics = {METRIC: 1.0 / epoch, "validation.loss": 9.0}
                report = EpochReport(epoch=epoch, epochs=21, metrics=metrics, seconds=1.0)
                catalog.add_epoch(catalog.trial(study.id, number).id, report)
        monkeypatch.setattr(module.time, "time", lambda: NOW + 90.0)
        yield catalog


def test_what_runs_and_how_far_it_is(catalog: Catalog) -> None:
    catalog.set_study(catalog.study("houses").id, state="running")
    with Lease(catalog, "houses"):
        (study,) = glance(catalog)
    running = study.pop("running")
    assert study.pop("process") > 0
    # The lease was taken by the very clock that is asked.
    assert study == {
        "study": "houses",
        "state": "running",
        "request": None,
        "metric": METRIC,
        "best": 0.5,
        "trials": {"complete": 1, "running": 3},
        "trials_asked": 8,
        "host": host(),
        "job": None,
        "since_seconds": 0.0,
        "heard_seconds": 0.0,
    }
    rows = [[trial[key] for key in ("trial", "epoch", "epochs", "value", "reported_seconds")] for trial in running]
    assert rows == [[1, 3, 12, 1 / 3, 90.0], [2, 13, 21, 1 / 13, 90.0], [3, 0, 0, None, None]]
    assert [trial["started_seconds"] for trial in running] == [90.0] * 3
    assert running[0]["params"] == {"train.optimizer.lr": 0.25}


def test_the_best_is_the_least_where_less_is_better(catalog: Catalog) -> None:
    study_id = catalog.study("houses").id
    assert catalog.best_value(study_id, "minimize") == 0.5, "not the trunk's, which does not compete"
    file = WeightsFile(kind="ema", path="e", metrics={METRIC: 0.75}, epoch=1, bytes=1, sha256="s")
    catalog.end_trial(catalog.trial(study_id, 1).id, "complete", value=0.75, weights=[(file, "e", 0.75)])
    assert catalog.best_value(study_id, "minimize") == 0.5
    assert catalog.best_value(study_id, "maximize") == 0.75
    assert catalog.best_value(catalog.study("idle").id, "maximize") is None


def test_a_study_that_nobody_runs_is_shown_by_its_name_alone(catalog: Catalog) -> None:
    catalog.set_study(catalog.study("houses").id, state="running")  # its orchestrator died
    assert glance(catalog) == []
    (study,) = glance(catalog, "houses")
    assert (study["state"], study["running"], study["host"], study["best"]) == ("stopped", [], None, 0.5)
    with pytest.raises(NoStudy, match="no study named 'hauses' here; studies: houses, idle"):
        glance(catalog, "hauses")


def test_a_person_sees_a_line_a_study_and_a_row_a_trial(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"job_submission_id": "sweeper-houses-2", "job_address": "http://head:8265"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": told}))
    catalog.set_study(catalog.study("houses").id, state="running")
    with Lease(catalog, "houses"):
        catalog.set_study(catalog.study("houses").id, request="pause")
        seen = glance(catalog)
    out = io.StringIO()
    Console(file=out, width=200).print(draw(seen, "waiting"))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines[0] == (
        f"houses: running (asked to pause), 1/8 trials, best {METRIC} 0.5000, process {seen[0]['process']} on {host()} "
        "(Ray job sweeper-houses-2) for 0s, heard 0s ago"
    )
    assert lines[1:] == [
        f"trial epoch {METRIC} reported params",
        "0001 3/12 0.3333 1:30 ago lr=0.25",
        "0002 13/21 0.0769 1:30 ago lr=0.5",
        "0003 lr=0.75",
        "waiting",
    ]


def test_programs_get_json_and_pipes_get_it_once(catalog: Catalog) -> None:
    for said in ({"as_json": True}, {"once": True}, {}):
        out = io.StringIO()
        assert top(catalog, Console(file=out, width=200), **said) == 0  # type: ignore[arg-type]
        assert out.getvalue() == (
            "[]\n" if said == {"as_json": True} else "no study runs; all there are: sweeper list\n"
        )


class _Terminal:
    """A terminal on which a script happens between one look and the next, and ctrl-C in the end."""

    def __init__(self, *happens: object) -> None:
        self.happens = list(happens)
        self.out = io.StringIO()
        self.console = Console(file=self.out, width=200, force_terminal=True)

    def pause(self, seconds: float) -> None:
        assert seconds == module.REFRESH_SECONDS
        if not self.happens:
            raise KeyboardInterrupt
        self.happens.pop(0)()  # type: ignore[operator]


def test_it_is_drawn_anew_until_ctrl_c(catalog: Catalog) -> None:
    study = catalog.study("houses")

    def reports() -> None:
        report = EpochReport(epoch=4, epochs=12, metrics={METRIC: 0.4321}, seconds=1.0)
        catalog.add_epoch(catalog.trial(study.id, 1).id, report)

    catalog.set_study(study.id, state="running")
    terminal = _Terminal(reports)
    with Lease(catalog, "houses"):
        assert top(catalog, terminal.console, pause=terminal.pause) == 0
    before, after = terminal.out.getvalue().split("4/12")
    assert "3/12" in before
    assert "0.4321" in after


def test_a_database_that_is_away_is_waited_for(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(transient: bool) -> None:
        def studies() -> None:
            raise StoreError("database gone", transient=transient)

        monkeypatch.setattr(catalog, "studies", studies)

    terminal = _Terminal(lambda: fails(transient=True), monkeypatch.undo, lambda: fails(transient=False))
    with pytest.raises(StoreError, match="database gone"):
        top(catalog, terminal.console, pause=terminal.pause)
    assert terminal.out.getvalue().count("as it was; waiting for the database (database gone)") == 1
