"""Soups of weights that other trials have left: only of those that no barrier keeps apart."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trials.assembled import Assembled, in_digits
from trials.average.barrier import BARRIERS, barrier_matrix, draw_barriers, kept_apart
from trials.average.filling import Parts, fill, fits, parts_of, write_as
from trials.average.soup import greedy_soup, mean_of_files
from trials.average.stored import StoredWeights, opened_alike
from trials.checkpoint import TrialFolder
from trials.data import Split, Splits
from trials.device import on_model_device
from trials.disk import sync, temporary_for
from trials.errors import TrialError
from trials.fit.evaluate import evaluate
from trials.keep import refresh_from_training_split, validation_metrics
from trials.kept import verified_path
from trials.model.build import build_model
from trials.recipe import GreedySoup, Recipe, UniformSoup
from trials.result import is_better
from trials.seed import generator, kept_random_state

BARRIER_EXAMPLES = 512
"""Of the selection split, and of the training split for batch norm: for a barrier's height a few are enough, and there
are three points between each two ingredients."""
_KEY = "assembly.ingredients"


def make_soup(recipe: Recipe, where: TrialFolder, splits: Splits, place: torch.device) -> Assembled:
    """Average the ingredients that may be averaged, and measure batch norm anew; written as one file.

    In place of a greedy soup that is worse than its first ingredient as that was kept, the file is a copy of that.
    Raises :class:`TrialError` when no two of them may be averaged, or a file is gone or is of another model.
    """
    assembly = recipe.assembly
    assert isinstance(assembly, UniformSoup | GreedySoup)
    pot = _Pot(recipe, splits, place)
    paths = [verified_path(kept, where.root, _KEY) for kept in assembly.ingredients]
    for kept, path in zip(assembly.ingredients, paths, strict=True):
        pot.require_fit(path, kept.name)
    accepted, notes = _sorted_out(assembly, paths, pot, where)
    # The mean lies where the soup will, which takes its place once batch norm is measured.
    soup = where.kept_weights("soup")
    soup.parent.mkdir(exist_ok=True)
    chosen = accepted
    if isinstance(assembly, GreedySoup):
        taken, mean = greedy_soup([paths[index] for index in accepted], pot.worth, recipe.metric, soup.parent)
        assert mean == soup, "both are called soup.safetensors"
        chosen = tuple(accepted[index] for index in taken)
    else:
        mean_of_files([paths[index] for index in accepted], soup)
    with opened_alike([soup]) as (file,):
        fill(pot.model, file, parts_of(file))
        pot.refresh()
        write_as(pot.model, file, soup)
    said = _inside(assembly, chosen)
    if isinstance(assembly, GreedySoup):
        said = _first_if_better(soup, paths[0], pot, assembly.ingredients[0].name) or said
    return Assembled("soup", (said, *notes))


def _inside(assembly: UniformSoup | GreedySoup, chosen: Sequence[int]) -> str:
    """Who is in the soup."""
    inside = ", ".join(assembly.ingredients[index].name for index in chosen)
    alone = ": no mean with another was as good" if len(chosen) == 1 else ""
    return f"{len(chosen)} of {len(assembly.ingredients)} ingredients are in the soup: {inside}{alone}"


def _first_if_better(soup: Path, first: Path, pot: _Pot, name: str) -> str | None:
    """Put the first ingredient, as it was kept, in place of a soup that is worse; what is then said, else ``None``.

    The soup began with that one's batch norm measured anew, which may have cost more than the others gave. The soup
    is what the pot holds.
    """
    metric = pot.recipe.metric
    together = pot.value()
    pot.fill(first)
    alone = pot.value()
    if not (math.isnan(together) or is_better(metric, alone, than=together)):
        return None
    with temporary_for(soup) as temporary:
        shutil.copyfile(first, temporary)
        sync(temporary)
        temporary.replace(soup)
        sync(soup.parent)
    values = [in_digits(metric, value, len(pot.splits.selection)) for value in (alone, together)]
    return (
        f"the soup is {name} as it was kept, with a {metric} of {values[0]}: no mean with batch norm measured anew was "
        f"better than {values[1]}"
    )


def _sorted_out(
    assembly: UniformSoup | GreedySoup, paths: Sequence[Path], pot: _Pot, where: TrialFolder
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The indices of the ingredients that may be averaged, and why others may not; with a picture of the barriers."""
    matrix = barrier_matrix(paths, pot.loss)
    names = [kept.name for kept in assembly.ingredients]
    draw_barriers(matrix, names, where.pictures / BARRIERS)
    accepted, refusals = kept_apart(matrix, assembly.barrier_tolerance)
    notes = tuple(
        f"{names[refusal.refused]} is kept apart from {names[refusal.apart_from]}: on the way between them the loss "
        f"rises by {refusal.barrier:.3g} of theirs, more than {assembly.barrier_tolerance:g}"
        for refusal in refusals
    )
    if len(accepted) < 2:
        raise TrialError(f"{_KEY}: no two of these weights can be averaged: {'; '.join(notes)}")
    return accepted, notes


@dataclass
class _Pot:
    """A model that takes one set of weights after another."""

    recipe: Recipe
    splits: Splits
    place: torch.device

    def __post_init__(self) -> None:
        spec, outputs = self.splits.preprocess.spec, self.splits.target.outputs
        with kept_random_state(torch.device("cpu")):
            model = build_model(self.recipe.model, spec, outputs)
        self.model: nn.Module = on_model_device(model, self.place, self.recipe, spec)
        self._sample = _some_of(self.splits.selection, self.recipe.seed)
        average = self.recipe.average
        fewer = average.model_copy(update={"batch_norm_samples": min(BARRIER_EXAMPLES, average.batch_norm_samples)})
        self._quick = self.recipe.model_copy(update={"average": fewer})

    def require_fit(self, path: Path, name: str) -> None:
        """Raise :class:`TrialError` when the weights in a file are of another model."""
        with opened_alike([path]) as (file,):
            if not fits(self.model, file):
                raise TrialError(
                    f"{_KEY}: {name} is of another model than this {self.recipe.model.build}, expected weights of one "
                    "architecture; leave it out"
                )

    def fill(self, path: Path) -> None:
        """Put the weights of a file that fits into the model."""
        with opened_alike([path]) as (file,):
            fill(self.model, file, parts_of(file))

    def refresh(self) -> None:
        """Measure batch norm anew."""
        refresh_from_training_split(self.model, self.recipe, self.splits, self.place)

    def worth(self, path: Path) -> float:
        """What weights are worth on the selection split by the recipe's metric, with batch norm measured anew."""
        self.fill(path)
        self.refresh()
        return self.value()

    def value(self) -> float:
        """What the model is worth as it stands, on the selection split by the recipe's metric."""
        found = evaluate(self.model, self.splits.selection, self.splits, self.recipe, self.place)
        return validation_metrics(found)[self.recipe.metric]

    def loss(self, like: StoredWeights, parts: Parts) -> float:
        """The loss of weights on some examples of the selection split, with batch norm measured anew on a few."""
        fill(self.model, like, parts)
        refresh_from_training_split(self.model, self._quick, self.splits, self.place)
        return evaluate(self.model, self._sample, self.splits, self.recipe, self.place).loss


def _some_of(split: Split, seed: int) -> Split:
    """At most `BARRIER_EXAMPLES` of a split, drawn by the seed."""
    order = torch.randperm(len(split), generator=generator(torch.device("cpu"), seed, "barrier"))
    rows = order[:BARRIER_EXAMPLES].sort().values.to(split.targets.device)
    return Split(split.inputs[rows.to(split.inputs.device)], split.targets[rows])
