"""What a person sees while a study runs: a live view on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeper.catalog import FIRST_UNSEARCHED
from sweeper.rank.leaderboard import figure
from trials.result import EpochReport, is_better

LINE_SECONDS = 10.0
"""A pipe gets a line on what runs at most this often; ends of trials always get theirs."""
OTHER_LINES = 6
"""Lines of the live view that are no trials: summary, bar, head of the table, how many more, note, the cursor's."""
STYLES = {"complete": "green", "pruned": "yellow", "failed": "red"}


@dataclass
class _Trial:
    params: Mapping[str, Any]
    epochs: int
    """To train; 0 where something is made of weights, without training."""
    epoch: int = 0
    seen: int = 0
    """Epochs reported since this process began to watch: a continued trial has more behind it."""
    value: float | None = None
    seconds: float = 0.0

    @property
    def left_seconds(self) -> float | None:
        """Time to the last epoch at the pace so far; ``None`` before the first report."""
        return self.seconds / self.seen * (self.epochs - self.epoch) if self.seen else None


@dataclass
class Scoreboard:
    """What is known of a running study, from which both views draw."""

    name: str
    metric: str
    trials: int
    counts: dict[str, int]
    moves: int = 0
    """Trials that have ended and were none of the search's: trunks, finishing moves, fresh seeds."""
    continued: set[int] = field(default_factory=set)
    """The trials that went on after a fault of their workers."""
    best: tuple[int, float] | None = None
    running: dict[int, _Trial] = field(default_factory=dict)
    born_at: float = field(default_factory=time.monotonic)

    def started(self, number: int, params: Mapping[str, Any], epochs: int, after_epochs: int = 0) -> None:
        self.running[number] = _Trial(params, epochs, after_epochs)

    def reported(self, number: int, report: EpochReport) -> None:
        trial = self.running[number]
        trial.epoch, trial.value = report.epoch, report.metrics[self.metric]
        trial.seconds += report.seconds
        trial.seen += 1

    def ended(self, number: int, state: str, value: float | None) -> None:
        self.running.pop(number, None)
        if number < FIRST_UNSEARCHED:
            self.counts[state] = self.counts.get(state, 0) + 1
        else:
            self.moves += 1
        if state == "complete" and value is not None:
            self.see(number, value)

    def see(self, number: int, value: float) -> None:
        """Remember the best value of a complete trial."""
        if self.best is None or is_better(self.metric, value, than=self.best[1]):
            self.best = (number, value)

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def summary(self) -> str:
        """One line: how far the study is."""
        parts = [f"{self.done}/{self.trials} trials", f"{len(self.running)} running"]
        parts += [f"{self.counts[state]} {state}" for state in STYLES if self.counts.get(state)]
        if self.moves:
            parts.append(f"{self.moves} trained or made beside them")
        if self.continued:
            parts.append(f"{len(self.continued)} continued")
        if self.best is not None:
            parts.append(f"best {self.metric} {figure(self.best[1])} (trial {self.best[0]:04d})")
        return ", ".join(parts)


class LineView:
    """Plain lines, for pipes and log files."""

    def __init__(self, console: Console, board: Scoreboard) -> None:
        self._console, self._board = console, board
        self._spoke_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def note(self, text: str) -> None:
        self._say(text)

    def idle(self) -> None:
        """Nothing runs any more."""
        self._board.running.clear()

    def started(self, number: int, params: Mapping[str, Any], epochs: int, after_epochs: int = 0) -> None:
        self._board.started(number, params, epochs, after_epochs)
        how = f"goes on after epoch {after_epochs}" if after_epochs else "started"
        self._say(f"trial {number:04d} {how}" + (f": {describe(params)}" if params else ""))

    def reported(self, number: int, report: EpochReport) -> None:
        self._board.reported(number, report)

    def continued(self, number: int, after: str, *, counted: bool = True) -> None:
        if counted:
            self._board.continued.add(number)
        self._say(f"trial {number:04d} {after}")

    def ended(self, number: int, state: str, value: float | None, reason: str | None) -> None:
        epoch = self._board.running[number].epoch if number in self._board.running else 0
        self._board.ended(number, state, value)
        self._say(end_line(number, state, self._board.metric, value, epoch, reason))
        self._say(self._board.summary())

    def tick(self) -> None:
        if time.monotonic() - self._spoke_at >= LINE_SECONDS:
            running = ", ".join(
                f"trial {number:04d}" + (f" epoch {trial.epoch}/{trial.epochs}" if trial.epochs else "")
                for number, trial in sorted(self._board.running.items())
            )
            self._say(f"{self._board.summary()}: {running}" if running else self._board.summary())

    def _say(self, text: str) -> None:
        self._spoke_at = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A view that redraws itself, with ended trials scrolling away above it."""

    def __init__(self, console: Console, board: Scoreboard) -> None:
        self._console, self._board, self._note = console, board, ""
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def note(self, text: str) -> None:
        self._note = text

    def idle(self) -> None:
        """Nothing runs any more."""
        self._board.running.clear()

    def started(self, number: int, params: Mapping[str, Any], epochs: int, after_epochs: int = 0) -> None:
        self._note = ""
        self._board.started(number, params, epochs, after_epochs)

    def reported(self, number: int, report: EpochReport) -> None:
        self._board.reported(number, report)

    def continued(self, number: int, after: str, *, counted: bool = True) -> None:
        if counted:
            self._board.continued.add(number)
        self._live.console.print(Text(f"trial {number:04d} {after}", style="yellow"))

    def ended(self, number: int, state: str, value: float | None, reason: str | None) -> None:
        epoch = self._board.running[number].epoch if number in self._board.running else 0
        self._board.ended(number, state, value)
        line = end_line(number, state, self._board.metric, value, epoch, reason)
        self._live.console.print(Text(line, style=STYLES["failed" if reason else state]))

    def tick(self) -> None:
        return None  # the Live thread redraws by itself

    def _draw(self) -> RenderableType:
        board = self._board
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(ratio=1)
        head.add_column(justify="right")
        head.add_row(Text(f"{board.name}: {board.summary()}", style="bold"), clock(time.monotonic() - board.born_at))
        parts: list[RenderableType] = [head, ProgressBar(total=board.trials, completed=board.done)]
        if board.running:
            table = Table(box=None, pad_edge=False, expand=True)
            for column, justify in (("trial", "right"), ("epoch", "right"), ("", "left"), (board.metric, "right")):
                table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
            table.add_column("left", justify="right", no_wrap=True)
            table.add_column("params", ratio=1, no_wrap=True, overflow="ellipsis")
            # What does not fit is cut off anyway, and takes longer to draw than the study has to answer its workers.
            rows = max(1, self._live.console.height - OTHER_LINES)
            for number, trial in sorted(board.running.items())[:rows]:
                left = trial.left_seconds
                table.add_row(
                    f"{number:04d}",
                    f"{trial.epoch}/{trial.epochs}" if trial.epochs else "",
                    ProgressBar(total=trial.epochs, completed=trial.epoch, width=12) if trial.epochs else "",
                    "" if trial.value is None else figure(trial.value),
                    "" if left is None else clock(left),
                    describe(trial.params),
                )
            parts.append(table)
            if len(board.running) > rows:
                parts.append(Text(f"and {len(board.running) - rows} more", style="dim"))
        if self._note:
            parts.append(Text(self._note, style="dim"))
        return Group(*parts)


def open_view(console: Console, board: Scoreboard, *, live: bool = True) -> LineView | LiveView:
    """The view that fits where the output goes; ``live=False`` leaves a terminal to a debugger's prompt."""
    return LiveView(console, board) if live and console.is_terminal else LineView(console, board)


def end_line(number: int, state: str, metric: str, value: float | None, epoch: int, reason: str | None) -> str:
    """How a trial ended, in one line."""
    line = f"trial {number:04d} {state}"
    if epoch:
        line += f" after {counted(epoch, 'epochs')}"
    if value is not None:
        line += f": {metric} {figure(value)}"
    return line + (f": {reason}" if reason else "")


def attempt_line(attempt: Mapping[str, Any]) -> str:
    """What a person is told of one of the `attempts` of a trial.

    >>> attempt_line({"kind": "lost", "reason": "the worker died (SIGKILL)"})
    'continued after: the worker died (SIGKILL)'
    >>> attempt_line({"kind": "out_of_memory", "reason": "micro_batch 32 after out of memory"})
    'micro_batch 32 after out of memory'
    >>> attempt_line({"kind": "retry", "reason": "ValueError: no such column"})
    'retried after: ValueError: no such column'
    """
    if attempt["kind"] == "out_of_memory":
        return str(attempt["reason"])
    return f"{'retried' if attempt['kind'] == 'retry' else 'continued'} after: {attempt['reason']}"


def was_continued(attempts: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a trial went on after its worker was lost or hung; neither a smaller micro-batch nor a retry is that.

    >>> was_continued([{"kind": "out_of_memory"}, {"kind": "retry"}]), was_continued([{"kind": "stalled"}])
    (False, True)
    """
    return any(attempt["kind"] in ("lost", "stalled") for attempt in attempts)


def counted(number: int, things: str) -> str:
    """
    >>> counted(1, "epochs"), counted(2, "epochs")
    ('1 epoch', '2 epochs')
    """
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def describe(params: Mapping[str, Any]) -> str:
    """Sampled values, short: the last word of each path.

    >>> describe({"train.optimizer": "sgd", "train.optimizer.lr": 0.031415926, "data.augment.1": "rotation"})
    'optimizer=sgd lr=0.0314 augment.1=rotation'
    """
    return " ".join(
        f"{_short(path)}={value:.3g}" if isinstance(value, float) else f"{_short(path)}={value}"
        for path, value in params.items()
    )


def _short(path: str) -> str:
    *before, last = path.split(".")
    return f"{before[-1]}.{last}" if last.isdigit() and before else last


def clock(seconds: float) -> str:
    """Seconds as people read them.

    >>> clock(7), clock(75), clock(3675)
    ('7s', '1:15', '1:01:15')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"
