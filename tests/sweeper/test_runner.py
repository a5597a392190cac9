from __future__ import annotations

import dataclasses
import socket
import threading
import time
from pathlib import Path

import endless_training
import pytest
import torch
from fake_training import score

from sweeper.runner import Completed, Failed, Interrupted, Job, Reported, Runner, Stopped, set_threads
from trials.nodes import Invitation, Nodes
from trials.recipe import Recipe


def _job(folder: Path, fakes: Path, lr: float = 0.1, epochs: int = 3) -> Job:
    recipe = Recipe.model_validate(
        {
            "data": {"source": "digits"},
            "model": {"build": "linear"},
            "train": {"epochs": epochs, "optimizer": {"name": "sgd", "lr": lr}},
        }
    )
    return Job(0, recipe.model_dump_json(), str(folder), (str(fakes),))


def test_a_trial_hands_its_events_out_one_at_a_time(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("fake_training:instant")
    event, seen = runner.start(_job(tmp_path, fakes)), []
    while isinstance(event, Reported):
        seen.append((event.report.epoch, event.report.metrics["validation.accuracy"]))
        event = runner.advance(True)
    assert seen == [(epoch, score(0.1) * epoch / 3) for epoch in (1, 2, 3)]
    assert isinstance(event, Completed)
    assert [file.kind for file in event.result.weights] == ["ema", "raw"]
    runner.close()


def test_a_trial_told_to_stop_stops_there(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("fake_training:instant")
    runner.start(_job(tmp_path, fakes))
    runner.advance(True)
    assert isinstance(runner.advance(False), Stopped)
    assert (tmp_path / "epochs").read_text() == "2"
    runner.close()


def test_what_a_trial_raises_becomes_one_line_and_the_runner_lives_on(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("fake_training:always_raises")
    for _ in range(2):
        event = runner.start(_job(tmp_path, fakes))
        assert isinstance(event, Failed)
        assert event.reason == "ValueError: no such column: 'price'"
        assert event.kind == "raised"
        assert "in always_raises" in event.traceback
    runner.close()


def test_closing_stops_a_trial_in_the_midst_of_an_epoch(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("endless_training:never_ends")
    runner.start(_job(tmp_path, fakes))
    answering = threading.Thread(target=runner.advance, args=(True,), daemon=True)
    answering.start()
    time.sleep(0.05)
    runner.close()
    assert (tmp_path / "put-away").exists()
    answering.join(5)
    assert not {thread.name for thread in threading.enumerate()} & {"trial", answering.name}


def test_a_trial_that_lost_a_process_may_go_on(tmp_path: Path, fakes: Path) -> None:
    event = Runner("endless_training:loses_a_process").start(_job(tmp_path, fakes))
    assert isinstance(event, Failed)
    assert event.kind == "lost"
    assert event.reason == "ProcessLost: train.data_parallel: process 1 of 2 died (SIGKILL)"


def test_a_slot_that_lost_a_node_is_past_use_and_one_that_lost_a_process_here_is_not(
    tmp_path: Path, fakes: Path
) -> None:
    for others, spoiled in (((), False), ((_nowhere,), True)):
        runner = Runner("endless_training:loses_its_last_process", nodes=Nodes(4, others))
        event = runner.start(_job(tmp_path, fakes))
        assert isinstance(event, Failed)
        assert (event.kind, event.spoiled) == ("lost", spoiled)
        assert event.reason == f"ProcessLost: process 3 of 4 on {1 + len(others)} node(s) died"
        runner.close()


def _nowhere(_: Invitation) -> None:
    """A node on which nothing is ever started."""


def test_a_function_that_is_not_there_is_a_failed_trial(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("no_such_module:train")
    event = runner.start(_job(tmp_path, fakes))
    assert isinstance(event, Failed)
    assert event.reason == "ModuleNotFoundError: No module named 'no_such_module'"
    runner.close()


def test_threads_are_set_for_each_trial() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            set_threads(threads)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_trial_that_exits_is_a_failed_trial_and_the_slot_lives_on(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("fake_training:exits")
    for _ in range(2):
        event = runner.start(_job(tmp_path, fakes))
        assert isinstance(event, Failed)
        assert event.reason == "SystemExit: no data today"
    runner.close()


def test_a_worker_that_does_not_see_the_study_says_so(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("fake_training:instant")
    job = dataclasses.replace(_job(tmp_path / "trial", fakes), must_see=str(tmp_path / "study.yaml"))
    event = runner.start(job)
    assert isinstance(event, Failed)
    assert event.reason == (
        f"{socket.gethostname()} does not see {tmp_path}/study.yaml: SWEEPER_HOME must be a folder that all nodes share"
    )
    (tmp_path / "study.yaml").write_text("study: x")
    assert isinstance(runner.start(job), Reported)
    runner.close()


def test_what_a_stopped_trial_held_does_not_count_as_kept(tmp_path: Path, fakes: Path) -> None:
    """200 MB of a pruned trial are gone with it: measured while its exception is handled they would still be there."""
    runner = Runner("fake_training:holds_while_it_runs")
    for _ in range(3):
        assert isinstance(runner.start(_job(tmp_path, fakes)), Reported)
        event = runner.advance(False)
        assert isinstance(event, Stopped)
        assert event.kept_bytes < 100 << 20
    runner.close()


def test_a_trial_that_is_asked_saves_and_is_interrupted(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("fake_training:instant")
    runner.start(_job(tmp_path, fakes))
    runner.interrupt(0)
    assert isinstance(runner.advance(True), Interrupted)
    assert (tmp_path / "epochs").read_text() == "1"
    again = runner.start(_job(tmp_path, fakes))
    assert isinstance(again, Reported)
    assert again.report.epoch == 1, "it goes on, and tells its newest epoch again"
    assert isinstance(runner.advance(True), Reported), "what was asked of it holds no longer"
    runner.close()


def test_a_request_may_overtake_the_start_and_concerns_one_trial(tmp_path: Path, fakes: Path) -> None:
    runner, job = Runner("fake_training:instant"), _job(tmp_path, fakes)
    runner.interrupt(0)
    assert isinstance(runner.start(job), Interrupted)
    runner.interrupt(7)
    assert isinstance(runner.start(job), Reported)
    assert isinstance(runner.advance(True), Reported)
    runner.close()


@pytest.mark.parametrize(
    ("train", "kind", "reason"),
    [
        ("diverges", "diverged", "Diverged: loss is nan at epoch 1, step 3"),
        ("needs_too_much", "out_of_memory", "OutOfMemory: cpu: not enough memory"),
        ("fills_the_disk", "no_space", "NoSpace: {folder}: No space left on device; make room, then start again"),
        ("does_not_fit_the_data", "raised", "TrialError: model.build: linear takes no images"),
    ],
)
def test_failures_have_a_kind(train: str, kind: str, reason: str, tmp_path: Path, fakes: Path) -> None:
    runner = Runner(f"endless_training:{train}")
    event = runner.start(_job(tmp_path, fakes))
    assert isinstance(event, Failed)
    assert (event.kind, event.reason) == (kind, reason.format(folder=tmp_path))
    assert f"in {train}" in event.traceback
    assert not event.spoiled
    runner.close()


def test_what_a_failed_trial_held_is_free_when_it_is_told(tmp_path: Path, fakes: Path) -> None:
    runner = Runner("endless_training:needs_too_much")
    runner.start(_job(tmp_path, fakes))
    assert endless_training.LAST[0]() is None
    runner.close()
