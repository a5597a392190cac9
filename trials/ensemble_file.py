"""Several models in one safetensors file: their tensors as ``members.<i>.<name>``, their shares as its metadata.

What models these are stands in the recipe alone, so that a file of weights never says what code is to run: the shares
are in the order of ``recipe.assembly.members``, with 0 for each that was not chosen and is not in the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from trials.data import InputSpec, Target
from trials.disk import write_whole
from trials.errors import TrialError
from trials.locate import one_line
from trials.model.build import build_model
from trials.model.ensemble import Ensemble
from trials.recipe import GreedyEnsemble, Member, Recipe, TopEnsemble
from trials.tensor_files import Weights, packed_weights

_SHARES = "shares"


def write_ensemble(path: Path, weights: Sequence[Weights], shares: Sequence[float]) -> None:
    """Write an ensemble as one file, whole or not at all.

    Args:
        path: where to.
        weights: of each model whose share is above 0, in the order of the shares.
        shares: one for each of the recipe's members; 0 for those that are left out.
    """
    assert len(weights) == sum(share > 0 for share in shares), "one set of weights for each share"
    tensors = {f"members.{i}.{name}": tensor for i, each in enumerate(weights) for name, tensor in each.items()}
    write_whole(path, packed_weights(tensors, {_SHARES: json.dumps(list(shares))}))


def read_shares(recipe: Recipe, metadata: Mapping[str, str]) -> tuple[float, ...]:
    """The share of each of ``recipe.assembly.members`` in the ensemble whose file has that metadata; some may be 0.

    Raises :class:`TrialError` in one line when the file holds another ensemble, or none.
    """
    expected = len(_members(recipe))
    said = metadata.get(_SHARES, "none")
    try:
        shares = json.loads(said)
    except (ValueError, RecursionError):
        shares = None
    if (
        not isinstance(shares, list)
        or len(shares) != expected
        or not all(isinstance(share, float) and math.isfinite(share) and share >= 0 for share in shares)
        or not any(shares)
    ):
        raise TrialError(
            f"these weights are of another model (shares: found {said[:60]!r}, expected {expected} numbers)"
        )
    return tuple(shares)


def build_chosen(recipe: Recipe, spec: InputSpec, target: Target, metadata: Mapping[str, str]) -> Ensemble:
    """The ensemble whose file has that metadata, with its shares but not its weights yet.

    Draws from the global generator. Raises :class:`TrialError` when the file holds another ensemble, or none, and when
    a member's recipe cannot be read, :class:`ModelError` when one cannot be built.
    """
    shares = read_shares(recipe, metadata)
    chosen = [recipe_of_member(member) for member, share in zip(_members(recipe), shares, strict=True) if share > 0]
    models = [build_model(its.model, spec, target.outputs) for its in chosen]
    losses = [its.train.loss for its in chosen]
    return Ensemble(models, losses, [share for share in shares if share > 0], target.task)


def recipe_of_member(member: Member) -> Recipe:
    """The recipe of the trial that left a member. Raises :class:`TrialError` if it is none, or of an ensemble."""
    name = member.weights.name
    try:
        recipe = Recipe.model_validate_json(json.dumps(member.recipe))
    except (ValidationError, RecursionError) as error:
        raise TrialError(f"{name}: its recipe cannot be read ({one_line(error, limit=200)})") from error
    if recipe.makes_ensemble:
        raise TrialError(f"{name}: is an ensemble itself, expected a single model; name its members instead")
    return recipe


def _members(recipe: Recipe) -> tuple[Member, ...]:
    assert isinstance(recipe.assembly, TopEnsemble | GreedyEnsemble), "a recipe of an ensemble"
    return recipe.assembly.members
