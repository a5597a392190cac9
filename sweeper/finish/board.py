"""What the catalog says of a study while it is finished: its trials, and the weights they left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from sweeper.catalog import ENDED, FIRST_UNSEARCHED, Catalog, Role, StudyRow, TrialRow, WeightsRow
from sweeper.rank.leaderboard import AVERAGED, rank
from sweeper.study_file import Finish
from trials.recipe import KeptWeights, Recipe


@dataclass(frozen=True)
class Step:
    """A trial that is none of the search's."""

    role: Role
    params: dict[str, Any]
    """What people are told of it."""
    recipe: Recipe

    def recipe_json(self) -> dict[str, Any]:
        """The recipe as the catalog keeps it."""
        content: dict[str, Any] = json.loads(self.recipe.model_dump_json())
        return content


@dataclass(frozen=True)
class Board:
    """All that finishing moves follow from."""

    finish: Finish
    seed: int
    """The study's."""
    metric: str
    trials: Sequence[TrialRow]
    weights: Sequence[WeightsRow]
    """Of complete trials."""

    @cached_property
    def searched(self) -> list[WeightsRow]:
        """The weights that the search's trials left, best first."""
        return rank([row for row in self.weights if row.role == "search"], self.metric)

    @cached_property
    def by_number(self) -> Mapping[int, TrialRow]:
        return {trial.number: trial for trial in self.trials}

    @cached_property
    def _by_recipe(self) -> Mapping[str, TrialRow]:
        return {identity(self.recipe(trial.number)): trial for trial in self.trials if trial.role != "search"}

    def find(self, step: Step) -> TrialRow | None:
        """The trial that a step became, if it was begun."""
        # Read once more: what was put together unread may say 1 where a recipe from the catalog says 1.0.
        return self._by_recipe.get(identity(Recipe.model_validate_json(step.recipe.model_dump_json())))

    @cached_property
    def _by_trial(self) -> Mapping[int, list[WeightsRow]]:
        grouped: dict[int, list[WeightsRow]] = {}
        for row in rank(self.weights, self.metric):
            grouped.setdefault(row.trial, []).append(row)
        return grouped

    def left(self, number: int) -> list[WeightsRow]:
        """The weights that a trial left, best first."""
        return self._by_trial.get(number, [])

    def raw(self, number: int) -> WeightsRow | None:
        """The weights of a trial as they were trained."""
        return next((row for row in self.left(number) if row.kind == "raw"), None)

    def recipe(self, number: int) -> Recipe:
        """What a trial was trained by."""
        return _parsed(json.dumps(self.by_number[number].recipe))

    def has_ended(self, steps: Sequence[Step]) -> bool:
        """Whether all of them have been tried."""
        found = [self.find(step) for step in steps]
        return all(trial is not None and trial.state in ENDED for trial in found)

    def next_number(self) -> int:
        """The number of the next trial that is none of the search's."""
        return max((trial.number for trial in self.trials if trial.role != "search"), default=FIRST_UNSEARCHED - 1) + 1


@lru_cache(maxsize=1024)
def _parsed(recipe_json: str) -> Recipe:
    """A recipe is asked for again and again, and cannot be changed."""
    return Recipe.model_validate_json(recipe_json)


def read_board(catalog: Catalog, row: StudyRow, finish: Finish, seed: int) -> Board:
    """The board of a study as it stands."""
    trials, weights = catalog.trials(row.id), catalog.weights(row.id, of="complete")
    return Board(finish, seed, row.metric, trials, weights)


def identity(recipe: Recipe) -> str:
    """What tells one step from another: its recipe, apart from how it fits into memory.

    Of a recipe that was read: one that was written before some key was known then says what holds without it.
    """
    train = recipe.train.model_copy(update={"micro_batch": None})
    return recipe.model_copy(update={"train": train}).model_dump_json()


def kept(row: WeightsRow) -> KeptWeights:
    """Weights as the recipe of another trial of the study names them."""
    return KeptWeights(path=f"../../{row.path}", sha256=row.sha256, name=name_of(row), value=row.value)


def name_of(row: WeightsRow) -> str:
    """What people call a file of weights.

    >>> name_of(WeightsRow(7, "ema", "trials/0007/weights/ema.safetensors", 0.9, {}, 3, 100, ""))
    'ema of trial 0007'
    """
    return f"{row.kind} of trial {row.trial:04d}"


def is_average(row: WeightsRow) -> bool:
    """Whether weights are an average within their trial."""
    return row.kind in AVERAGED
