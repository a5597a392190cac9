"""Make one file of weights out of those that other trials have left: no training at all."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trials.assembled import Assembled, in_digits
from trials.average.ensemble import CHOOSERS, Chosen
from trials.average.filling import fill, fits, parts_of
from trials.average.stored import opened_alike
from trials.check.size_curve import draw_size_curve
from trials.checkpoint import TrialFolder
from trials.data import Splits
from trials.device import on_model_device
from trials.ensemble_file import build_chosen, recipe_of_member, write_ensemble
from trials.errors import TrialError
from trials.fit.evaluate import on_device, predict
from trials.fit.loss import class_scores
from trials.keep import kept_metrics
from trials.kept import read_kept, verified_path
from trials.members import check_alike
from trials.model.build import build_model
from trials.recipe import GreedyEnsemble, Member, Recipe, TopEnsemble
from trials.result import TrialResult, WeightsFile, WeightsKind
from trials.seed import kept_random_state
from trials.soups import make_soup

ENSEMBLE_PICTURE = "ensemble.png"
_KEY = "assembly.members"


def assemble(recipe: Recipe, where: TrialFolder, splits: Splits, place: torch.device) -> TrialResult:
    """Make what ``recipe.assembly`` asks for, and score it as any weights are scored: as it is in its file.

    All choices are made on the selection split. Begun again after a kill, it makes the same file. Raises
    :class:`TrialError` in one line when a file that it needs was changed or is gone, when the models cannot go
    together, or when what they make gives no numbers.
    """
    assert recipe.assembly is not None, "a recipe that assembles"
    started = time.perf_counter()
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    assembled = ASSEMBLIES[recipe.assembly.name](recipe, where, splits, place)
    file, model = _scored(assembled.kind, recipe, where, splits, place)
    return TrialResult(
        epochs=0,
        weights=(file,),
        notes=(*assembled.notes, *where.notes),
        shares=assembled.shares,
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        seconds=time.perf_counter() - started,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        peak_memory_bytes=torch.cuda.max_memory_allocated(place) if place.type == "cuda" else 0,
    )


def _scored(
    kind: WeightsKind, recipe: Recipe, where: TrialFolder, splits: Splits, place: torch.device
) -> tuple[WeightsFile, nn.Module]:
    """What the file that was made is worth, and the model in it."""
    path = where.kept_weights(kind)
    with opened_alike([path]) as (stored,):
        model = _built(recipe, splits, stored.metadata if recipe.makes_ensemble else None)
        fill(model, stored, parts_of(stored))
    model = on_model_device(model, place, recipe, splits.preprocess.spec)
    metrics = kept_metrics(model, recipe, splits, place)
    if not math.isfinite(metrics["validation.loss"]):
        raise TrialError(
            f"{path}: the validation loss of the {kind} is {metrics['validation.loss']}, expected a number; "
            "leave out the weights that give none"
        )
    file = WeightsFile(
        kind=kind,
        path=path.relative_to(where.root).as_posix(),
        metrics=metrics,
        epoch=0,
        bytes=path.stat().st_size,
        sha256=_digest(path),
    )
    return file, model


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _built(recipe: Recipe, splits: Splits, metadata: Mapping[str, str] | None = None) -> nn.Module:
    """The recipe's model in eval mode, without its weights yet; with ``metadata`` the ensemble whose file has it."""
    spec, target = splits.preprocess.spec, splits.target
    with kept_random_state(torch.device("cpu")):
        if metadata is not None:
            return build_chosen(recipe, spec, target, metadata).eval()
        return build_model(recipe.model, spec, target.outputs).eval()


def make_ensemble(recipe: Recipe, where: TrialFolder, splits: Splits, place: torch.device) -> Assembled:
    """Choose among the members by their answers on the selection split; write those chosen as one file."""
    assembly = recipe.assembly
    assert isinstance(assembly, TopEnsemble | GreedyEnsemble)
    for index, member in enumerate(assembly.members):
        check_alike(member, recipe_of_member(member), recipe, splits, place, f"{_KEY}[{index}]")
    answers = torch.stack([_answers(member, recipe, where, splits, place) for member in assembly.members])
    targets = on_device(splits.selection.targets, torch.device("cpu"))
    chosen = CHOOSERS[assembly.name](answers, targets, splits.target, recipe.metric, assembly.most)
    kept = [member for member, share in zip(assembly.members, chosen.shares, strict=True) if share > 0]
    weights = [read_kept(member.weights, where.root, _KEY) for member in kept]
    write_ensemble(where.kept_weights("ensemble"), weights, chosen.shares)
    values = [worth.value for worth in chosen.curve]
    draw_size_curve(values, chosen.size, recipe.metric, where.pictures / ENSEMBLE_PICTURE)
    notes = _ensemble_notes(chosen, assembly.members, recipe.metric, len(targets))
    return Assembled("ensemble", notes, tuple(chosen.shares))


def _answers(member: Member, recipe: Recipe, where: TrialFolder, splits: Splits, place: torch.device) -> Tensor:
    """A member's probabilities (N, classes), or standardised values (N, 1), on the selection split; float64, on the
    host."""
    its_recipe = recipe_of_member(member)
    model = _built(its_recipe, splits)
    with opened_alike([verified_path(member.weights, where.root, _KEY)]) as (file,):
        if not fits(model, file):
            raise TrialError(
                f"{_KEY}: {member.weights.name} is of another model than the {its_recipe.model.build} of its recipe; "
                "leave it out"
            )
        fill(model, file, parts_of(file))
    model = on_model_device(model, place, recipe, splits.preprocess.spec)
    outputs = predict(model, splits.selection.inputs, splits.preprocess, recipe, place).cpu().double()
    if splits.target.task == "regression":
        return outputs
    return class_scores(outputs, its_recipe.train.loss).softmax(dim=1)


def _ensemble_notes(chosen: Chosen, members: tuple[Member, ...], metric: str, count: int) -> tuple[str, ...]:
    """Who is in, what each size is worth, and how that compares with the best single model."""

    values = [in_digits(metric, worth.value, count) for worth in chosen.curve]
    curve = ", ".join(f"{size}: {value}" for size, value in enumerate(values, start=1))
    by_size = f"{metric} of the mean of so many answers: {curve}"
    best = members[chosen.choices[0]].weights.name
    shares = sorted(zip(chosen.shares, members, strict=True), key=lambda pair: -pair[0])
    inside = [f"{share:.3g} {member.weights.name}" for share, member in shares if share > 0]
    if len(inside) == 1:
        return f"no mean of several was better than {best} alone, so the ensemble is that one", by_size
    return (
        f"{len(inside)} of {len(members)} models are in the ensemble, with shares {', '.join(inside)}",
        by_size,
        f"on the split that chose it, its {metric} is {values[chosen.size - 1]}; that of {best} alone is {values[0]}",
    )


ASSEMBLIES: dict[str, Callable[[Recipe, TrialFolder, Splits, torch.device], Assembled]] = {
    "uniform_soup": make_soup,
    "greedy_soup": make_soup,
    "top_ensemble": make_ensemble,
    "greedy_ensemble": make_ensemble,
}
"""By the name in a recipe's ``assembly``."""
