"""What was tried across studies and what it came to, as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sweeper.rank.leaderboard import figure
from trials.recipe import Recipe
from trials.result import METRICS

SINGLE = "best single"
"""The way that needs no averaging: the best weights that one of the studies has."""


@dataclass(frozen=True)
class Made:
    """Weights, and what they are worth."""

    way: str
    kind: str
    recipe: Recipe
    path: Path
    sha256: str
    metrics: Mapping[str, float]
    """``validation.*``, and ``confirm.*`` where examples are set aside."""
    notes: tuple[str, ...]
    """What they are, in plain words."""
    alone: bool = False
    """Whether nothing went in but the best single model: that is no average, whatever batch norm measured anew says."""


@dataclass(frozen=True)
class Attempt:
    """A way that was tried."""

    way: str
    made: Made | None
    """``None`` where it was refused."""
    notes: tuple[str, ...]
    """What went in and what was refused, or why all was."""


@dataclass(frozen=True)
class Outcome:
    """All that was tried with some studies."""

    studies: tuple[str, ...]
    metric: str
    single: Made
    attempts: tuple[Attempt, ...]
    barriers: Path | None = None
    """The picture of the barriers between what was to be averaged, where they were measured."""

    @property
    def name(self) -> str:
        """What is handed over is called so."""
        return name_of(self.studies)

    @property
    def made(self) -> list[Made]:
        """What could be made."""
        return [attempt.made for attempt in self.attempts if attempt.made is not None]

    @property
    def leading(self) -> Made:
        """What is best on the selection split; where values are equal, by the loss, and then the single model."""
        return self._best_of(self.made)

    @property
    def best(self) -> Made:
        """What is handed over: the best on the selection split of what has lost nothing on the confirmation split."""
        return self._best_of([made for made in self.made if self.confirmed_gain(made) >= 0])

    def _best_of(self, several: list[Made]) -> Made:
        sign = -1.0 if METRICS[self.metric] == "maximize" else 1.0
        return min(
            (self.single, *(made for made in several if not made.alone)),
            key=lambda made: (sign * made.metrics[self.metric], made.metrics.get("validation.loss", 0.0)),
        )

    def confirmed_gain(self, made: Made) -> float:
        """By how much it is better than the single model on the confirmation split; 0 where none is set aside."""
        return 0.0 if self.confirmation is None else gain(made, self.single, self.metric, self.confirmation)

    @cached_property
    def confirmation(self) -> str | None:
        """The metric on the examples on which nothing was chosen; ``None`` where none are set aside."""
        name = self.metric.replace("validation.", "confirm.", 1)
        return name if all(name in made.metrics for made in (self.single, *self.made)) else None


def name_of(studies: tuple[str, ...]) -> str:
    """
    >>> name_of(("photos", "scans"))
    'photos-scans-soup'
    """
    return "-".join(studies) + "-soup"


def rows(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    """Each way with its value on the selection and the confirmation split, and what it is, as people read them."""
    single = outcome.single
    return [
        (SINGLE, *_values(outcome, single), single.notes[0]),
        *(
            (attempt.way, "refused", "", attempt.notes[0])
            if attempt.made is None
            else (attempt.way, *_values(outcome, attempt.made), attempt.notes[0])
            for attempt in outcome.attempts
        ),
    ]


def remarks(outcome: Outcome) -> list[str]:
    """What else there is to say of the ways, each thing once: mostly what was refused and why."""
    by_note: dict[str, list[str]] = {}
    for attempt in outcome.attempts:
        for note in attempt.notes[1:]:
            by_note.setdefault(note, []).append(attempt.way)
    return [f"{', '.join(ways)}: {note}" for note, ways in by_note.items()]


def judgement(outcome: Outcome) -> str:
    """Whether averaging was worth it, in a sentence."""
    best, leading, single, metric = outcome.best, outcome.leading, outcome.single, outcome.metric
    short = metric.removeprefix("validation.")
    if leading is single:
        return f"no mean of several is better than {single.notes[0]} on the selection split"
    if best is single:
        chosen, lost = gain(leading, single, metric), -outcome.confirmed_gain(leading)
        return (
            f"the {leading.way} gained {figure(chosen)} in {short} over {single.notes[0]} on the selection split, "
            f"which chose it, and lost {figure(lost)} on the confirmation split: the single model is handed over"
        )
    amount = gain(best, single, metric)
    said = f"the {best.way} gained {figure(amount)} in {short} over {single.notes[0]} on the selection split"
    if amount == 0:
        said = f"the {best.way} is as good in {short} as {single.notes[0]} on the selection split, at a lower loss"
    if outcome.confirmation is None:
        return said + ", which chose it"
    return f"{said}, which chose it; on the confirmation split it gained {figure(outcome.confirmed_gain(best))}"


def gain(made: Made, single: Made, metric: str, of: str | None = None) -> float:
    """By how much it is better than the single model, positive where better."""
    sign = 1.0 if METRICS[metric] == "maximize" else -1.0
    return sign * (made.metrics[of or metric] - single.metrics[of or metric])


def _values(outcome: Outcome, made: Made) -> tuple[str, str]:
    confirmation = outcome.confirmation
    return figure(made.metrics[outcome.metric]), "" if confirmation is None else figure(made.metrics[confirmation])
