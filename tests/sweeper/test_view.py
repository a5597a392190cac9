from __future__ import annotations

import io

import pytest
from rich.console import Console

from sweeper import view
from sweeper.view import LineView, LiveView, Scoreboard, clock, describe, end_line, open_view
from trials.result import EpochReport


def _board(metric: str = "validation.accuracy") -> Scoreboard:
    return Scoreboard("digits", metric, 4, {})


def _report(epoch: int, value: float, seconds: float = 2.0) -> EpochReport:
    metrics = {"validation.accuracy": value, "validation.loss": value}
    return EpochReport(epoch=epoch, epochs=10, metrics=metrics, seconds=seconds)


def test_a_pipe_gets_plain_lines() -> None:
    out = io.StringIO()
    with open_view(Console(file=out, width=40), _board()) as lines:
        assert isinstance(lines, LineView)
        lines.started(0, {"train.optimizer": "sgd", "train.optimizer.lr": 0.0314159}, 10)
        lines.reported(0, _report(1, 0.5))
        lines.reported(0, _report(2, 0.75))
        lines.ended(0, "complete", 0.76, None)
        lines.started(1, {"train.optimizer": "adamw"}, 10)
        lines.ended(1, "failed", None, "Diverged: the training loss became nan in epoch 1 step 3")
    assert out.getvalue().splitlines() == [
        "trial 0000 started: optimizer=sgd lr=0.0314",
        "trial 0000 complete after 2 epochs: validation.accuracy 0.7600",
        "1/4 trials, 0 running, 1 complete, best validation.accuracy 0.7600 (trial 0000)",
        "trial 0001 started: optimizer=adamw",
        "trial 0001 failed: Diverged: the training loss became nan in epoch 1 step 3",
        "2/4 trials, 0 running, 1 complete, 1 failed, best validation.accuracy 0.7600 (trial 0000)",
    ]


def test_what_the_search_did_not_ask_for_is_counted_apart_and_what_is_not_trained_has_no_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view, "LINE_SECONDS", 0.0)
    out = io.StringIO()
    with open_view(Console(file=out, width=40), _board()) as lines:
        lines.started(100_000, {"move": "greedy soup"}, 0)
        lines.tick()
        lines.ended(100_000, "complete", 0.9, None)
    assert out.getvalue().splitlines() == [
        "trial 100000 started: move=greedy soup",
        "0/4 trials, 1 running: trial 100000",
        "trial 100000 complete: validation.accuracy 0.9000",
        "0/4 trials, 0 running, 1 trained or made beside them, best validation.accuracy 0.9000 (trial 100000)",
    ]


def test_what_is_continued_are_trials_and_not_their_faults() -> None:
    """Twice the same trial, one with a smaller micro-batch, and one that was known before."""
    out, board = io.StringIO(), _board()
    board.continued = {2}
    with open_view(Console(file=out, width=40), board) as lines:
        lines.continued(0, "continued after: the worker died (SIGKILL)")
        lines.continued(0, "continued after: the worker died (SIGKILL)")
        lines.continued(1, "micro_batch 32 after out of memory", counted=False)
        assert board.summary() == "0/4 trials, 0 running, 2 continued"


def test_a_trial_that_is_extended_goes_on_and_may_fail_without_loss() -> None:
    out = io.StringIO()
    board = Scoreboard("digits", "validation.accuracy", 4, {"complete": 2, "failed": 1})
    with open_view(Console(file=out), board) as lines:
        lines.started(1, {"train.optimizer.lr": 0.5}, 6, after_epochs=4)
        assert (board.running[1].epoch, board.running[1].left_seconds) == (4, None)
        lines.reported(1, _report(5, 0.5))
        lines.ended(1, "complete", 0.75, "its extension failed: Diverged: loss is nan")
    assert out.getvalue().splitlines() == [
        "trial 0001 goes on after epoch 4: lr=0.5",
        "trial 0001 complete after 5 epochs: validation.accuracy 0.7500: its extension failed: Diverged: loss is nan",
        "4/4 trials, 0 running, 3 complete, 1 failed, best validation.accuracy 0.7500 (trial 0001)",
    ]


def test_a_silent_pipe_is_told_now_and_then_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(view.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    lines = LineView(Console(file=out), _board())
    lines.started(3, {}, 10)
    lines.reported(3, _report(4, 0.5))
    lines.tick()
    assert len(out.getvalue().splitlines()) == 1, "not yet"
    now[0] += view.LINE_SECONDS
    lines.tick()
    lines.tick()
    assert out.getvalue().splitlines()[1:] == ["0/4 trials, 1 running: trial 0003 epoch 4/10"]


def test_a_terminal_shows_progress_and_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    board = _board()
    live = open_view(console, board)
    assert isinstance(live, LiveView)
    board.started(7, {"train.optimizer.lr": 0.01}, 10)
    board.reported(7, _report(1, 0.5, seconds=3.0))
    board.reported(7, _report(2, 0.625, seconds=5.0))
    with console.capture() as captured:
        console.print(live._draw())
    screen = captured.get()
    assert "digits: 0/4 trials, 1 running" in screen
    (row,) = [line.split() for line in screen.splitlines() if "0007" in line]
    assert row[:2] == ["0007", "2/10"]
    assert row[-3:] == ["0.6250", "32s", "lr=0.01"], "8 epochs are left at 4 seconds each"


def test_a_terminal_shows_as_many_trials_as_it_has_room_for() -> None:
    """Of a thousand, what it cannot show is not drawn: that takes half a second, four times a second."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=20, color_system=None)
    board = _board()
    live = open_view(console, board)
    assert isinstance(live, LiveView)
    for number in range(1000):
        board.started(number, {}, 10)
    live.note("a note")
    with console.capture() as captured:
        console.print(live._draw())
    lines = captured.get().splitlines()
    assert len(lines) < 20
    shown = [int(line.split()[0]) for line in lines if "0/10" in line]
    assert shown == list(range(14))
    assert "and 986 more" in lines


def test_best_follows_the_direction_of_the_metric() -> None:
    for metric, best in (("validation.accuracy", (1, 0.9)), ("validation.loss", (2, 0.1))):
        board = _board(metric)
        for number, value in enumerate((0.5, 0.9, 0.1)):
            board.started(number, {}, 1)
            board.ended(number, "complete", value)
        assert board.best == best


def test_a_pruned_value_is_not_the_best() -> None:
    board = _board()
    board.started(0, {}, 1)
    board.ended(0, "pruned", 0.99)
    assert board.best is None
    assert board.summary() == "1/4 trials, 0 running, 1 pruned"


@pytest.mark.parametrize(
    ("seconds", "read"), [(0.4, "0s"), (59.9, "59s"), (60, "1:00"), (3599, "59:59"), (90061, "25:01:01")]
)
def test_clock(seconds: float, read: str) -> None:
    assert clock(seconds) == read


def test_lines_of_ends() -> None:
    assert (
        end_line(5, "pruned", "validation.loss", 0.25, 1, None)
        == "trial 0005 pruned after 1 epoch: validation.loss 0.2500"
    )
    assert describe({"model.width": 16, "train.ema": None}) == "width=16 ema=None"
