"""The recipes of finishing moves, made from those of the trials that they begin with."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sweeper.catalog import WeightsRow
from sweeper.finish.board import Board, kept
from trials.recipe import Cosine, GreedyEnsemble, GreedySoup, Member, Recipe, Start, Teacher, TopEnsemble, UniformSoup

MOST_INGREDIENTS = 8
"""Of a soup: each is measured against each."""
_OWN = {"extensions": (), "start": None, "teacher": None, "assembly": None}
"""What a recipe does not hand on."""


def handed_on(recipe: Recipe, **changed: object) -> Recipe:
    """The recipe with changes, and without what is its trial's own: a trunk too, which is not taken twice."""
    average = recipe.average.model_copy(update={"trunk_epochs": 0})
    return recipe.model_copy(update={**_OWN, "average": average, **changed})


def soup(board: Board, ingredients: Sequence[WeightsRow], seed: int, *, greedy: bool) -> Recipe:
    """A soup of weights of one architecture, the best first."""
    files = tuple(kept(row) for row in ingredients[:MOST_INGREDIENTS])
    tolerance = board.finish.barrier_tolerance
    made = (
        GreedySoup(name="greedy_soup", ingredients=files, barrier_tolerance=tolerance)
        if greedy
        else UniformSoup(name="uniform_soup", ingredients=files, barrier_tolerance=tolerance)
    )
    return handed_on(board.recipe(ingredients[0].trial), seed=seed, assembly=made)


def ensemble(board: Board, members: Sequence[WeightsRow], seed: int, *, greedy: bool) -> Recipe:
    """An ensemble of some of these models, the best first."""
    chosen, most = tuple(member(board, row) for row in members), board.finish.ensemble_size
    made = (
        GreedyEnsemble(name="greedy_ensemble", members=chosen, most=most)
        if greedy
        else TopEnsemble(name="top_ensemble", members=chosen, most=most)
    )
    return handed_on(board.recipe(members[0].trial), seed=seed, assembly=made)


def member(board: Board, row: WeightsRow) -> Member:
    """A model, as an ensemble or a teacher names it."""
    return Member(weights=kept(row), recipe=json.loads(board.recipe(row.trial).model_dump_json()))


def longer(board: Board, weights: WeightsRow, epochs: int, seed: int, lr: float = 1.0) -> Recipe:
    """More epochs from these weights, at a learning rate that falls from a share of its own to 0.

    Args:
        board: of the study.
        weights: to begin from.
        epochs: to train.
        seed: of the training.
        lr: that learning rate, as a multiple of what `finish.lr` says.
    """
    recipe = board.recipe(weights.trial)
    optimizer = recipe.train.optimizer
    top = board.by_number[weights.trial].facts.get("lr") or optimizer.lr
    train = recipe.train.model_copy(
        update={
            "epochs": epochs,
            "schedule": Cosine(name="cosine"),
            "optimizer": optimizer.model_copy(update={"lr": top * board.finish.lr * lr}),
            "lr_finder": None,
            "early_stop": None,
        }
    )
    went_before = (0 if recipe.start is None else recipe.start.epochs) + weights.epoch
    start = Start(weights=kept(weights), epochs=went_before)
    return handed_on(recipe, seed=seed, train=train, start=start)


def student(board: Board, of: WeightsRow, teacher: WeightsRow | None, epochs: int, seed: int) -> Recipe:
    """A training from the beginning by the recipe of ``of``, with a teacher if there is one."""
    recipe = board.recipe(of.trial)
    distil = board.finish.distil
    taught = None
    if teacher is not None:
        taught = Teacher(
            members=chosen_members(board, teacher),
            temperature=distil.temperature,
            hard_fraction=distil.hard_fraction,
        )
    train = recipe.train.model_copy(update={"epochs": epochs})
    return handed_on(recipe, seed=seed, train=train, teacher=taught)


def chosen_members(board: Board, row: WeightsRow) -> tuple[Member, ...]:
    """The models of an ensemble, with their shares."""
    assembly = board.recipe(row.trial).assembly
    assert isinstance(assembly, TopEnsemble | GreedyEnsemble), "a trial that made an ensemble"
    shares = board.by_number[row.trial].facts["shares"]
    pairs = zip(assembly.members, shares, strict=True)
    return tuple(member.model_copy(update={"share": share}) for member, share in pairs if share > 0)
