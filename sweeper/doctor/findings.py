"""What is found in an examination, and what can be done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from sweeper.catalog import ENDED, EpochRow, StudyRow, TrialRow, WeightsRow
from sweeper.settings import Settings
from sweeper.store.open import open_folder
from sweeper.study import Study
from sweeper.study_folder import StudyFolder

SETTLED_SECONDS = 60.0
"""How long ago a trial of a study that runs must have ended to be compared: its end is not told everywhere at once."""

Action = Literal[
    "stop",
    "wait",
    "go_on",
    "rewrite_history",
    "forget_histories",
    "remove",
    "restore_weights",
    "pack_again",
    "choose_again",
    "forget_weights",
    "forget_resume_point",
    "delete_run",
    "run_anew",
    "tell_again",
    "register_again",
    "deliver",
]

WORDS: dict[Action, str] = {
    "stop": "sets it to stopped",
    "wait": "sets it to waiting",
    "go_on": "sets the study to stopped, and `sweeper start` goes on with it",
    "rewrite_history": "writes Optuna's history anew from the catalog",
    "forget_histories": "removes it",
    "remove": "removes it",
    "restore_weights": "copies them from the winner's package",
    "pack_again": "packs the winner anew",
    "choose_again": "drops them; `sweeper start` then chooses the winner anew, with another look at the test split",
    "forget_weights": "drops them from the leaderboard",
    "forget_resume_point": "removes what it would go on from",
    "delete_run": "deletes the run",
    "run_anew": "deletes the run and delivers it anew",
    "tell_again": "delivers it again",
    "register_again": "hands the winner over again",
    "deliver": "delivers it again",
}
"""What `--repair` does, in the order in which it is done: the catalog first, MLflow last."""


@dataclass(frozen=True)
class Finding:
    """One thing on which the records disagree."""

    where: str
    """``study``, ``trial 0003``, or a path below the study's folder."""
    what: str
    """What each record says."""
    action: Action | None = None
    """What mends it; ``None``: nothing does."""
    subject: str | int = ""
    """What of: the number of a trial, the id of a run, a path."""

    @property
    def remedy(self) -> str:
        return "nothing mends it" if self.action is None else f"--repair {WORDS[self.action]}"

    @property
    def line(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


@dataclass
class Examination:
    """One study under examination: its rows as they were read, and what was found."""

    settings: Settings
    row: StudyRow
    trials: Sequence[TrialRow]
    epochs: Mapping[int, Sequence[EpochRow]]
    """By trial id."""
    weights: Sequence[WeightsRow]
    runs_now: bool
    """Whether an orchestrator has it: then what is under way is left out."""
    now: float
    load: Callable[[], Study]
    """Reads what study.yaml said."""
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    """Told what is being looked at, and how much of how much is done."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    def find(self, where: str, what: str, action: Action | None = None, subject: str | int = "") -> None:
        """Note a finding."""
        self.findings.append(Finding(where, what, action, subject))

    @cached_property
    def folder(self) -> StudyFolder:
        return open_folder(self.settings, self.row.name)

    @cached_property
    def study(self) -> Study:
        return self.load()

    @property
    def is_finished(self) -> bool:
        return self.row.state == "finished" and not self.runs_now

    @property
    def searched(self) -> list[TrialRow]:
        """The trials that the search asked for; it knows of no others."""
        return [trial for trial in self.trials if trial.role == "search"]

    def settled(self) -> list[TrialRow]:
        """The trials to compare: all, but of a study that runs those that ended a while ago."""
        if not self.runs_now:
            return list(self.trials)
        return [
            trial
            for trial in self.trials
            if trial.state in ENDED and trial.ended_at is not None and trial.ended_at < self.now - SETTLED_SECONDS
        ]

    def epochs_of(self, trial: TrialRow) -> Sequence[EpochRow]:
        return self.epochs.get(trial.id, ())


def name_of(number: int) -> str:
    """
    >>> name_of(3)
    'trial 0003'
    """
    return f"trial {number:04d}"


def listed(numbers: Sequence[int]) -> str:
    """Epochs in words.

    >>> listed([3]), listed([3, 5])
    ('epoch 3', 'epochs 3, 5')
    """
    return f"epoch{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


def one_line(error: Exception) -> str:
    """What went wrong, however many lines it takes to say."""
    return " ".join(str(error).split())
