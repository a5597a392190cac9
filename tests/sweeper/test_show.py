"""What is said of a study whose metric is a number in its own units."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

from rich.console import Console

from sweeper.catalog import Catalog
from sweeper.settings import load_settings
from sweeper.show import describe_study, print_results, print_studies, print_study
from trials.result import EpochReport, WeightsFile

METRIC = "validation.rmse"


def _catalog(home: Path, values: dict[str, float], winner: str | None = None) -> Catalog:
    """A study of houses with one complete trial, whose weights are worth ``values``."""
    catalog = Catalog(f"sqlite:///{home / 'sweeper.db'}")
    study = catalog.add_study("houses", digest="d", text="", metric=METRIC, trials_asked=1)
    trial = catalog.add_trial(study.id, 0, params={"train.batch_size": 32}, recipe={"seed": 0})
    kept = [
        (WeightsFile(kind=kind, path=kind, metrics={METRIC: value}, epoch=1, bytes=1, sha256="s"), kind, value)  # type: ignore[arg-type]
        for kind, value in values.items()
    ]
    catalog.end_trial(trial.id, "complete", value=min(values.values()), weights=kept)
    if winner is not None:
        test = {"test.rmse": 51234.56, "test.rmse.low": 48000.4, "test.rmse.high": 54321.9}
        record = {"kind": winner, "trial": 0, "metric": METRIC, "selection": {METRIC: values[winner]}, "test": test}
        catalog.set_study(study.id, state="finished", winner={**record, "test_looks": 1})
    return catalog


def _lines(catalog: Catalog) -> list[str]:
    out = io.StringIO()
    print_results(catalog, "houses", load_settings(), Console(file=out, width=200))
    catalog.close()
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_values_are_printed_with_the_digits_that_matter(home: Path) -> None:
    lines = _lines(_catalog(home, {"raw": 50123.4, "swa": 49999.6}, winner="swa"))
    assert lines[:4] == [
        "leaderboard of houses: validation.rmse on the selection split",
        "weights trial value",
        "1 swa 0000 50000",
        "2 raw 0000 50123",
    ]
    assert lines[4:6] == [
        "averaging gained 123.80 in validation.rmse (lower is better): best average 50000, best single 50123",
        "winner: swa of trial 0000, test rmse 51235 (95 % interval 48000 to 54322), looked at once",
    ]


def test_an_average_that_is_worse_gained_nothing(home: Path) -> None:
    lines = _lines(_catalog(home, {"raw": 0.5, "best_n": 0.75}, winner="raw"))
    assert lines[4] == (
        "averaging gained nothing (-0.2500) in validation.rmse (lower is better): "
        "best average 0.7500, best single 0.5000"
    )


def test_an_average_as_good_has_no_minus_before_its_zero(home: Path) -> None:
    lines = _lines(_catalog(home, {"raw": 12.5, "ema": 12.5}, winner="raw"))
    assert lines[4].startswith(
        "averaging gained nothing (+0.0000) in validation.rmse (lower is better): best average 12.500"
    )


def test_epochs_of_each_extension_and_looks_are_counted(home: Path) -> None:
    catalog, out = _catalog(home, {"raw": 50123.4}, winner="raw"), io.StringIO()
    study = catalog.study("houses")
    assert study.winner is not None
    catalog.set_study(study.id, winner={**study.winner, "test_looks": 3})
    extensions = [{"after_epochs": 4, "epochs": 9}, {"after_epochs": 6, "epochs": 3}]
    catalog.set_trial(catalog.trial(study.id, 0).id, recipe={"seed": 0, "extensions": extensions})
    for epoch in range(1, 10):
        catalog.add_epoch(1, EpochReport(epoch=epoch, epochs=9, metrics={METRIC: 1.0}, seconds=1.0))
    print_study(catalog, "houses", load_settings(), Console(file=out, width=200))
    described = describe_study(catalog, "houses", load_settings())
    catalog.close()
    lines = out.getvalue().splitlines()
    assert lines[2].split()[:3] == ["0000", "complete", "4+2+3"]
    assert any(line.startswith("winner: raw") and line.endswith(", looked at 3 times") for line in lines)
    assert described["trials"][0]["extensions"] == extensions
    assert described["winner"]["test_looks"] == 3


def test_lists_of_studies_and_trials_print_the_same_digits(home: Path) -> None:
    catalog, out = _catalog(home, {"raw": 50123.4}), io.StringIO()
    console = Console(file=out, width=200)
    print_studies(catalog, console)
    print_study(catalog, "houses", load_settings(), console)
    catalog.close()
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert lines[1][:5] == ["houses", "stopped", "1/1", "50123", "validation.rmse"]
    assert lines[4] == ["0000", "complete", "0", "50123", "batch_size=32"]


def test_what_a_trial_went_through_has_a_line_each(home: Path) -> None:
    catalog, out = _catalog(home, {"raw": 50123.4}), io.StringIO()
    study = catalog.study("houses")
    attempts = [
        {"at": 1700000000.0, "kind": "lost", "reason": "the worker died (SIGKILL)"},
        {"at": 1700000060.0, "kind": "out_of_memory", "reason": "micro_batch 16 after out of memory"},
    ]
    catalog.set_trial(catalog.trial(study.id, 0).id, attempts=attempts)
    catalog.end_trial(
        catalog.add_trial(study.id, 1, params={"train.batch_size": 64}, recipe={"seed": 1}).id,
        "failed",
        reason="Diverged: loss is nan",
        failure="diverged",
    )
    catalog.set_study(study.id, state="paused")
    print_study(catalog, "houses", load_settings(), Console(file=out, width=200))
    described = describe_study(catalog, "houses", load_settings())
    catalog.close()
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines[0] == "houses: paused; `sweeper resume houses` continues it"
    assert lines[2:7] == [
        "0000 complete 0 50123 batch_size=32",
        "continued after: the worker died (SIGKILL)",
        "micro_batch 16 after out of memory",
        "0001 failed 0 batch_size=64",
        "Diverged: loss is nan",
    ]
    assert [trial["failure"] for trial in described["trials"]] == [None, "diverged"]
    first = described["trials"][0]["attempts"][0]
    assert datetime.fromisoformat(first["at"]).timestamp() == 1700000000.0
    assert first | {"at": None} == attempts[0] | {"at": None}
