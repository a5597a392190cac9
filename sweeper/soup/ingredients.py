"""Which weights of several studies may go together, and why others may not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeper.catalog import Catalog, StudyRow, WeightsRow
from sweeper.errors import StudyError
from sweeper.finish.alike import VARIED, given, shape
from sweeper.finish.board import name_of
from sweeper.finish.recipes import MOST_INGREDIENTS
from sweeper.rank.leaderboard import leaderboard, rank
from sweeper.settings import Settings
from sweeper.store.open import open_folder
from sweeper.study_folder import StudyFolder
from trials.recipe import KeptWeights, Recipe


@dataclass(frozen=True)
class Candidate:
    """Weights of one of the studies, of a single model."""

    study: StudyRow
    row: WeightsRow
    recipe: Recipe
    folder: StudyFolder

    @cached_property
    def path(self) -> Path:
        """The file, on this machine.

        Raises:
            StoreError: it is gone or was changed.
        """
        return self.folder.fetch(self.row.path, self.row.sha256)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{name_of(self.row)} of {self.study.name}"

    @property
    def kept(self) -> KeptWeights:
        """As a recipe names it, wherever that is carried out."""
        return KeptWeights(path=str(self.path), sha256=self.row.sha256, name=self.name, value=self.row.value)


@dataclass(frozen=True)
class Given:
    """What the model of a recipe was given."""

    splits: str
    """Digest of all examples and of how they are split."""
    prepared: str
    """How inputs are prepared, and what answers mean."""


def load_given(recipe: Recipe) -> Given:
    """Load the data of a recipe to see what its model was given.

    Raises:
        TrialError: the data cannot be had.
    """
    import torch

    from trials.examples import load_examples

    splits = load_examples(recipe, torch.device("cpu"))
    # How many examples there are of each class changes nothing of what an answer means.
    target = {name: value for name, value in splits.target.to_dict().items() if name != "counts"}
    return Given(splits.digest, json.dumps([splits.preprocess.to_dict(), target], sort_keys=True))


class Examples:
    """What recipes give their models; each data set is loaded once.

    Args:
        load: says what a recipe gives its model.
    """

    def __init__(self, load: Callable[[Recipe], Given] = load_given) -> None:
        self._load = load
        self._known: dict[str, Given] = {}

    def of(self, recipe: Recipe) -> Given:
        """What the model of ``recipe`` was given."""
        key = given(recipe)
        if key not in self._known:
            self._known[key] = self._load(recipe)
        return self._known[key]


def finished_studies(catalog: Catalog, names: Sequence[str]) -> list[StudyRow]:
    """The studies of these names.

    Raises:
        NoStudy: there is none of a name.
        StudyError: there are not several, one is named twice or is not finished, or they are about several metrics.
    """
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"STUDY: found {name!r} {names.count(name)} times, expected each study once")
    if len(names) < 2:
        raise StudyError(
            f"STUDY: found {len(names)}, expected at least 2; the soups of a single study are made by `finish` in "
            "its study.yaml"
        )
    studies = [catalog.study(name) for name in names]
    for study in studies:
        if study.state != "finished":
            raise StudyError(
                f"study {study.name!r} is {study.state}, expected it to be finished; finish it with: "
                f"sweeper start {study.file}"
            )
        if study.metric != studies[0].metric:
            raise StudyError(
                f"study {studies[0].name!r} is about {studies[0].metric}, {study.name!r} about {study.metric}; "
                "expected one metric, by which their weights are compared"
            )
    return studies


def candidates(catalog: Catalog, studies: Sequence[StudyRow], settings: Settings) -> list[Candidate]:
    """All the weights of these studies that are of a single model, best first.

    Raises:
        StudyError: a study has none.
    """
    found: dict[int, Candidate] = {}
    for study in studies:
        folder = open_folder(settings, study.name)
        recipes = {
            trial.number: Recipe.model_validate_json(json.dumps(trial.recipe)) for trial in catalog.trials(study.id)
        }
        rows = leaderboard(catalog.weights(study.id, of="complete"), study.metric)
        singles = [row for row in rows if not recipes[row.trial].makes_ensemble]
        if not singles:
            raise StudyError(f"study {study.name!r} has no weights any more, expected some to average")
        found |= {id(row): Candidate(study, row, recipes[row.trial], folder) for row in singles}
    ranked = rank([candidate.row for candidate in found.values()], studies[0].metric)
    return [found[id(row)] for row in ranked]


def check_same_splits(ranked: Sequence[Candidate], examples: Examples) -> None:
    """Make sure that the best of each study were trained and chosen on the same examples.

    Raises:
        StudyError: they were not; the message names what differs.
        TrialError: the data of a study cannot be had.
    """
    best = {candidate.study.name: candidate for candidate in reversed(ranked)}
    for other in best.values():
        if examples.of(other.recipe).splits != examples.of(ranked[0].recipe).splits:
            what = _differing_data(other.recipe, ranked[0].recipe)
            raise StudyError(
                f"studies {ranked[0].study.name!r} and {other.study.name!r} have other splits ({what}), expected the "
                "same: what one of them has chosen its weights on, the other may have trained on"
            )


def pick(ranked: Sequence[Candidate], examples: Examples, *, averaged: bool) -> tuple[list[Candidate], list[str]]:
    """The best of each study that go well with the best of all, best first; and why better ones than these do not.

    Args:
        ranked: weights of all the studies, best first.
        examples: what their models were given.
        averaged: for a soup, whose weights are of one architecture; else for an ensemble, in which each trial is once.
    """
    most = max(1, MOST_INGREDIENTS // len({candidate.study.name for candidate in ranked}))
    picked: list[Candidate] = []
    refused: dict[tuple[str, str], list[Candidate]] = {}
    seen: set[tuple[str, int]] = set()
    for candidate in ranked:
        name, trial = candidate.study.name, (candidate.study.name, candidate.row.trial)
        if sum(other.study.name == name for other in picked) == most or (not averaged and trial in seen):
            continue
        seen.add(trial)
        reason = _misfit(candidate.recipe, ranked[0].recipe, examples, averaged=averaged)
        if reason is None:
            picked.append(candidate)
        else:
            refused.setdefault((name, reason), []).append(candidate)
    return picked, [_told(group, reason) for (_, reason), group in refused.items()]


def share_no_start(picked: Sequence[Candidate]) -> bool:
    """Whether the weights of no two studies began from the same trunk or the same pretrained weights."""
    starts: dict[str, set[str]] = {}
    for candidate in picked:
        start = _start(candidate.recipe)
        starts.setdefault(candidate.study.name, set()).update(() if start is None else (start,))
    everyone = [start for group in starts.values() for start in group]
    return len(everyone) == len(set(everyone))


def _start(recipe: Recipe) -> str | None:
    if recipe.model.pretrained is not None:
        return recipe.model.pretrained.weights
    return None if recipe.start is None else recipe.start.weights.sha256


def _misfit(recipe: Recipe, best: Recipe, examples: Examples, *, averaged: bool) -> str | None:
    """Why weights do not go with the best of all; ``None`` if they do."""
    differences = list(_differences(_model(recipe), _model(best), "model")) if averaged else []
    if differences:
        return f"another architecture ({'; '.join(differences)})"
    own, wanted = examples.of(recipe), examples.of(best)
    if own.splits != wanted.splits:
        return f"other splits ({_differing_data(recipe, best)})"
    if own.prepared != wanted.prepared:
        return f"inputs that are prepared otherwise ({_differing_data(recipe, best)})"
    return None


def _model(recipe: Recipe) -> dict[str, Any]:
    """The model, wherever its pretrained weights came from."""
    return {key: value for key, value in shape(recipe.model).items() if key != "pretrained"}


def _differing_data(recipe: Recipe, best: Recipe) -> str:
    """What makes two recipes give their models other examples."""
    data = [each.data.model_dump(mode="json", exclude=VARIED) for each in (recipe, best)]
    starts = [
        None if (start := each.model.pretrained) is None else start.model_dump(include={"weights", "normalisation"})
        for each in (recipe, best)
    ]
    differences = [*_differences(data[0], data[1], "data"), *_differences(starts[0], starts[1], "model.pretrained")]
    return "; ".join(differences) or "their data has the same name, but not the same content"


def _differences(found: Any, expected: Any, place: str) -> Iterator[str]:
    """What differs between two sections, key by key.

    >>> list(_differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, "model"))
    ['model.b.c: found 2, expected 3']
    """
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from _differences(found.get(key), expected.get(key), f"{place}.{key}")
    elif found != expected:
        yield f"{place}: found {found!r}, expected {expected!r}"


def _told(group: Sequence[Candidate], reason: str) -> str:
    more = f" and {len(group) - 1} more of that study" if len(group) > 1 else ""
    return f"{group[0].name}{more}: {reason}"
