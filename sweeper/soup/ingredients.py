"""Which weights of several studies may go together, and why others may not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from trials.recipe import GreedySoup, KeptWeights, Recipe, UniformSoup


@dataclass(frozen=True)
class Candidate:
    """Weights of one of the studies, of a single model."""

    study: StudyRow
    row: WeightsRow
    recipe: Recipe
    folder: StudyFolder
    start: str | None
    """Where its training began, however often it was gone on from: pretrained weights, or those of a trunk; ``None``:
    random ones that no other training began from."""

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
        kept = catalog.weights(study.id, of="complete")
        made_by = {row.sha256: recipes[row.trial] for row in kept}
        rows = leaderboard(kept, study.metric)
        singles = [row for row in rows if not recipes[row.trial].makes_ensemble]
        if not singles:
            raise StudyError(f"study {study.name!r} has no weights any more, expected some to average")
        for row in singles:
            recipe = recipes[row.trial]
            found[id(row)] = Candidate(study, row, recipe, folder, start_of(recipe, made_by))
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

    For a soup also: that began where the studies both did, if there is such a start, whatever the best of all began
    from. Those that were trained again from a fresh seed by `finish` have another trunk.

    Args:
        ranked: weights of all the studies, best first.
        examples: what their models were given.
        averaged: for a soup, whose weights are of one architecture; else for an ensemble, in which each trial is once.
    """
    most = max(1, MOST_INGREDIENTS // len({candidate.study.name for candidate in ranked}))
    picked: list[Candidate] = []
    refused: dict[tuple[str, str], list[Candidate]] = {}
    seen: set[tuple[str, int]] = set()
    misfits = [_misfit(candidate.recipe, ranked[0].recipe, examples, averaged=averaged) for candidate in ranked]
    fitting = [candidate for candidate, misfit in zip(ranked, misfits, strict=True) if misfit is None]
    start = shared_start(fitting) if averaged else None
    for candidate, misfit in zip(ranked, misfits, strict=True):
        name, trial = candidate.study.name, (candidate.study.name, candidate.row.trial)
        if sum(other.study.name == name for other in picked) == most or (not averaged and trial in seen):
            continue
        seen.add(trial)
        reason = misfit
        if reason is None and start is not None and candidate.start != start:
            reason = "another start than the one that the studies share"
        if reason is None:
            picked.append(candidate)
        else:
            refused.setdefault((name, reason), []).append(candidate)
    return picked, [_told(group, reason) for (_, reason), group in refused.items()]


def shared_start(ranked: Sequence[Candidate]) -> str | None:
    """The start from which weights of most studies began, of several such the best one's; ``None`` if no two share one.

    Args:
        ranked: weights, best first.
    """
    studies: dict[str, set[str]] = {}
    for candidate in ranked:
        if candidate.start is not None:
            studies.setdefault(candidate.start, set()).add(candidate.study.name)
    start = max(studies, key=lambda each: len(studies[each]), default=None)
    return start if start is not None and len(studies[start]) > 1 else None


def start_of(recipe: Recipe, made_by: Mapping[str, Recipe]) -> str | None:
    """What `Candidate.start` says of weights that were made by ``recipe``.

    Args:
        recipe: of a training, a soup or an ensemble.
        made_by: the recipes that made files of weights, by the files' SHA-256.
    """
    start, at = None, recipe
    while at.model.pretrained is None:
        before = _began_from(at)
        if before is None:
            return start
        start = before
        if before not in made_by:
            return start
        at = made_by[before]
    return at.model.pretrained.weights


def _began_from(recipe: Recipe) -> str | None:
    if isinstance(recipe.assembly, UniformSoup | GreedySoup):
        return recipe.assembly.ingredients[0].sha256
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
