"""Models of other trials that answer together, or teach: each by its own recipe, all for the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from trials.data import Splits
from trials.ensemble_file import recipe_of_member
from trials.errors import TrialError
from trials.examples import load_examples
from trials.fit.distributed import ALONE, Ranks
from trials.kept import load_kept
from trials.model.build import build_model
from trials.model.ensemble import Ensemble
from trials.recipe import Member, Recipe


def load_teacher(
    members: Sequence[Member],
    recipe: Recipe,
    root: Path,
    splits: Splits,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Ensemble:
    """The members of ``teacher``, as one model in eval mode and without gradients, on the host.

    ``recipe`` is the student's, which is trained in the folder ``root`` on ``splits``. Draws from the global generator.
    The first of ``ranks`` alone reads the files.
    Raises :class:`TrialError` in one line for a member that cannot be read, or is not for these examples, and
    :class:`ModelError` for one that cannot be built.
    """
    spec, outputs = splits.preprocess.spec, splits.target.outputs
    models, recipes = [], [recipe_of_member(member) for member in members]
    for index, (member, its) in enumerate(zip(members, recipes, strict=True)):
        key = f"teacher.members[{index}]"
        check_alike(member, its, recipe, splits, device, key)
        model = build_model(its.model, spec, outputs)
        if ranks.leads:
            load_kept(model, member.weights, root, f"{key}.weights", its.model.build)
        ranks.share_weights(model)
        models.append(model)
    losses, shares = [its.train.loss for its in recipes], [member.share for member in members]
    return Ensemble(models, losses, shares, splits.target.task).requires_grad_(False).eval()


def check_alike(member: Member, its: Recipe, recipe: Recipe, splits: Splits, device: torch.device, key: str) -> None:
    """Raise :class:`TrialError` unless a member was trained on inputs and targets that mean those of ``splits``.

    Args:
        member: names the weights.
        its: its recipe.
        recipe: of ``splits``.
        splits: what it is to answer on.
        device: where the examples of its own recipe are loaded to, unless they are these.
        key: what names the member in the recipe, with which the message begins.
    """
    # These change nothing of what is trained on, and need not be loaded anew.
    same = {"confirm": recipe.data.confirm, "resident": recipe.data.resident}
    there = load_examples(its.model_copy(update={"data": its.data.model_copy(update=same)}), device)
    prepared, expected = there.preprocess.to_dict(), splits.preprocess.to_dict()
    different = [name for name in sorted(prepared.keys() | expected.keys()) if prepared.get(name) != expected.get(name)]
    if different:
        raise TrialError(
            f"{key}: {member.weights.name} takes inputs that are prepared otherwise (another {', '.join(different)}), "
            f"expected them as those of {recipe.data.source} are prepared here; leave it out"
        )
    # How many examples of each class there were changes nothing of what an answer means.
    if replace(there.target, counts=()) != replace(splits.target, counts=()):
        raise TrialError(
            f"{key}: {member.weights.name} predicts other classes, or a number on another scale, expected those of "
            f"{recipe.data.source} here; leave it out"
        )
