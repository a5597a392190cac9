"""What becomes of trials that fail, in each of the ways there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from bench import Bench, Watcher
from catalog_rows import trial_row

from sweeper import run
from sweeper.catalog import TrialRow
from sweeper.errors import NoRoom, StudyFailed
from sweeper.faults import look_for_stalled
from sweeper.in_process import InProcessWorkers
from sweeper.study import load_study
from sweeper.sweep import Running, Sweep

WriteStudy = Callable[..., Path]


class Killed(Exception):
    """The worker of a trial was to be killed."""


class Alive(InProcessWorkers):
    """Tells of it when a worker is to be killed."""

    def kill(self, number: int) -> None:
        raise Killed(number)


class Crowded(Alive):
    """No node has room for trial 0."""

    def unplaced(self, for_seconds: float) -> tuple[int, ...]:
        return (0,)


@pytest.fixture
def bench(tmp_path: Path, fakes: Path) -> Bench:
    return Bench(tmp_path, fakes)


def _study(write_study: WriteStudy, workers: str = "", **changes: Any) -> Path:
    path = write_study(**{"trials": 1, "epochs": 2} | changes)
    path.write_text(path.read_text().replace("{concurrent: 1}", f"{{concurrent: 1{workers}}}"))
    return path


def _trial(bench: Bench, number: int = 0) -> TrialRow:
    with closing(bench.catalog()) as catalog:
        return catalog.trial(catalog.study("small").id, number)


def _past(bench: Bench) -> optuna.trial.FrozenTrial:
    return bench.history()[0]


def test_a_lost_trial_goes_on_as_often_as_is_allowed(bench: Bench, write_study: WriteStudy) -> None:
    file = _study(write_study, ", retries: 2")
    died = "ProcessLost: train.data_parallel: process 1 of 2 died (SIGKILL)"
    with pytest.raises(StudyFailed, match=r"failed alike: .* \(3 times\)"):
        bench.run(file, "endless_training:loses_a_process")
    trial = _trial(bench)
    assert [(attempt["kind"], attempt["reason"]) for attempt in trial.attempts] == [("lost", died)] * 2
    assert trial.attempts[0]["at"] >= trial.started_at
    assert (trial.state, trial.failure, trial.reason) == ("failed", "lost", f"{died} (3 times)")
    assert (_past(bench).state.name, _past(bench).user_attrs["reason"]) == ("FAIL", f"{died} (3 times)")


def test_how_often_it_went_on_is_known_after_a_restart(bench: Bench, write_study: WriteStudy) -> None:
    file = _study(write_study, ", retries: 2")

    def die(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(file, "endless_training:loses_a_process", on_continue=die)
    assert len(_trial(bench).attempts) == 1
    with pytest.raises(StudyFailed, match=r"\(3 times\)"):
        bench.run(file, "endless_training:loses_a_process")
    assert len(_trial(bench).attempts) == 2


def test_a_clock_that_was_put_back_since_a_retry_gives_no_more_of_them(bench: Bench, write_study: WriteStudy) -> None:
    file = _study(write_study, ", retries: 2")

    def put_back(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(file, "endless_training:loses_a_process", on_continue=put_back)
    trial = _trial(bench)
    with closing(bench.catalog()) as catalog:
        mark = {"at": time.time() + 86_400, "kind": "retry", "reason": "it failed yesterday"}
        catalog.set_trial(trial.id, attempts=[mark, *trial.attempts])
    with pytest.raises(StudyFailed, match=r"\(3 times\)"):
        bench.run(file, "endless_training:loses_a_process")


def test_out_of_memory_halves_the_micro_batch_until_nothing_smaller_is_left(
    bench: Bench, write_study: WriteStudy
) -> None:
    file = _study(write_study)
    file.write_text(file.read_text().replace("{choice: [64, 128]}", "4"))
    lines = bench.run(file, "endless_training:needs_too_much").lines
    assert lines == [
        "0 started",
        "0 micro_batch 2 after out of memory",
        "0 micro_batch 1 after out of memory",
        "0 failed",
    ]
    trial, past = _trial(bench), _past(bench)
    assert trial.recipe["train"]["micro_batch"] == 1
    assert trial.recipe["train"]["batch_size"] == 4
    assert [attempt["kind"] for attempt in trial.attempts] == ["out_of_memory"] * 2
    assert (trial.state, trial.failure) == ("failed", "infeasible")
    assert trial.reason == "OutOfMemory: cpu: not enough memory; not even one example at a time fits"
    assert (past.state.name, past.value, past.constraints) == ("PRUNED", None, {"feasible": 1.0})


def test_a_full_disk_is_no_fault_of_the_trial(bench: Bench, write_study: WriteStudy) -> None:
    file = _study(write_study)
    with pytest.raises(NoRoom, match=r"^trial 0000: .*No space left on device$"):
        bench.run(file, "endless_training:fills_the_disk")
    trial = _trial(bench)
    assert (trial.state, trial.failure, trial.attempts) == ("waiting", None, [])
    assert bench.run(file).lines == ["0 started", "0 complete"]


def test_a_trial_that_says_nothing_is_killed_and_goes_on_once(
    bench: Bench, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "POLL_SECONDS", 0.01)
    file = _study(write_study, ", stall_minutes: 0.002")
    silent = "no report for 0.002 minutes (workers.stall_minutes)"
    with pytest.raises(StudyFailed, match="failed alike: no report"):
        bench.run(file, "endless_training:hangs")
    trial = _trial(bench)
    assert [(attempt["kind"], attempt["reason"]) for attempt in trial.attempts] == [("stalled", silent)]
    assert (trial.state, trial.failure, trial.reason) == ("failed", "stalled", f"{silent}, 2 times")
    assert _past(bench).state.name == "FAIL"
    assert list(_past(bench).intermediate_values) == [1], "what it had said is kept"


@pytest.mark.parametrize("request_", ["stop", "pause"])
def test_what_another_terminal_asks_for_is_done(
    request_: str, bench: Bench, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.0)
    file = _study(write_study)

    def ask(_: int) -> None:
        with closing(bench.catalog()) as catalog:
            catalog.set_study(catalog.study("small").id, request=request_)

    (bench.folder / "studies/small/trials/0000").mkdir(parents=True)  # where it leaves a note
    watcher = bench.run(file, "endless_training:until_asked", on_report=ask)
    assert watcher.asked == request_
    assert watcher.lines == ["0 started", "saving what runs"]
    assert _trial(bench).state == "waiting"
    with closing(bench.catalog()) as catalog:
        study = catalog.study("small")
        assert [epoch.epoch for epoch in catalog.epochs(study.id)[1]] == [1]
        catalog.set_study(study.id, request=None)
    assert bench.run(file).lines == ["0 started", "0 complete"]


def test_a_lost_extension_may_go_on_as_often_again(bench: Bench, write_study: WriteStudy) -> None:
    file = _study(write_study, ", retries: 1")
    bench.run(file)
    before = _trial(bench)
    with closing(bench.catalog()) as catalog:
        assert before.ended_at is not None
        attempt = {"at": before.ended_at - 1.0, "kind": "lost", "reason": "the worker died"}
        catalog.set_trial(before.id, attempts=[attempt])
    bench.extend(0, epochs=1)
    died = "ProcessLost: train.data_parallel: process 1 of 2 died (SIGKILL)"
    assert bench.run(file, "endless_training:loses_a_process").lines == [
        "0 goes on after 2 to 3",
        f"0 continued after: {died}",
        f"0 complete: its extension failed: {died} (2 times)",
    ]
    after = _trial(bench)
    assert replace(after, attempts=[], reason=None, delivered=False, files_delivered=False) == before


def test_a_trial_that_waits_for_a_worker_is_not_stalled_and_a_person_is_told_once(write_study: WriteStudy) -> None:
    study, watcher, nothing = load_study(_study(write_study, ", stall_minutes: 1")), Watcher(), cast("Any", None)
    sweep = Sweep(study, nothing, nothing, Crowded(), nothing, watcher, nothing, (), {}, [])
    sweep.running[0] = Running(nothing, heard_at=time.monotonic() - 3600)
    for _ in range(2):
        look_for_stalled(sweep)
    assert time.monotonic() - sweep.running[0].heard_at < 60
    assert watcher.lines == ["trial 0 waits for a worker, for which Ray has not found room yet"]


def test_a_soup_has_nothing_to_report_until_it_is_made(write_study: WriteStudy) -> None:
    study, nothing = load_study(_study(write_study, ", stall_minutes: 1")), cast("Any", None)
    sweep = Sweep(study, nothing, nothing, Alive(), nothing, Watcher(), nothing, (), {}, [])
    hours_ago = time.monotonic() - 7200
    sweep.running[0] = Running(trial_row(recipe={"assembly": {"name": "uniform_soup"}}), heard_at=hours_ago)
    look_for_stalled(sweep)
    sweep.running[1] = Running(trial_row(recipe={"assembly": None}), heard_at=hours_ago)
    with pytest.raises(Killed, match=r"^1$"):
        look_for_stalled(sweep)


def test_what_no_database_takes_is_no_part_of_a_reason(bench: Bench, write_study: WriteStudy) -> None:
    with pytest.raises(StudyFailed):
        bench.run(_study(write_study), "names_a_file_of_old")
    assert _trial(bench).reason == r"ValueError: c\udce9.png: \0 is no picture"
    assert r"c\udce9.png" in _trial(bench).facts["traceback"]
