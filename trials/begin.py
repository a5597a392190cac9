"""What a training begins with: the model with its first weights, and all that changes with it."""

from __future__ import annotations

import torch
from torch import nn

from trials.checkpoint import TrialFolder
from trials.data import InputSpec, Splits
from trials.device import on_model_device
from trials.errors import TrialError
from trials.fit.distil import Distillation
from trials.fit.distributed import Ranks, with_shared_statistics
from trials.fit.fitting import Fitting
from trials.fit.step import steps_per_epoch
from trials.kept import load_kept
from trials.members import load_teacher
from trials.model.build import build_model
from trials.model.pretrained import find_head, load_pretrained
from trials.recipe import Recipe
from trials.seed import seed_global_state


def begin(
    recipe: Recipe, where: TrialFolder, splits: Splits, device: torch.device, ranks: Ranks
) -> tuple[Fitting, tuple[str, ...]]:
    """The model before training, and notes about it.

    Drawn from the recipe's seed on the host, so that it is the same for every device; then ``model.pretrained`` or
    ``start`` may put other weights in place of what was drawn. Raises :class:`ModelError` when it cannot be built or
    ``model.pretrained`` does not fit, :class:`TrialError` when the weights to start from are not there, or not of it,
    unless there is a checkpoint to go on from, which has its own, and for a teacher that cannot be read or is not for
    these examples.
    """
    distillation = _distillation(recipe, where, splits, device, ranks)
    seed_global_state(device, recipe.seed, "init")
    spec, outputs = splits.preprocess.spec, splits.target.outputs
    model = build_model(recipe.model, spec, outputs)
    head, notes = ranks.agree(lambda: _first_weights(model, recipe, where, spec, outputs))
    if recipe.start is not None or recipe.model.pretrained is not None:
        ranks.share_weights(model)
    model = with_shared_statistics(on_model_device(model, device, recipe, spec), device, ranks)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    steps = steps_per_epoch(len(splits.train), recipe.train)
    return Fitting(model, recipe, splits.target, steps, device, head, ranks, distillation), notes


def _distillation(
    recipe: Recipe, where: TrialFolder, splits: Splits, device: torch.device, ranks: Ranks
) -> Distillation | None:
    if recipe.teacher is None:
        return None
    teacher = load_teacher(recipe.teacher.members, recipe, where.root, splits, device, ranks)
    return Distillation(on_model_device(teacher, device, recipe, splits.preprocess.spec), recipe.teacher, recipe)


def _first_weights(
    model: nn.Module, recipe: Recipe, where: TrialFolder, spec: InputSpec, outputs: int
) -> tuple[str, tuple[str, ...]]:
    """Put in place what the recipe begins with; the name of a pretrained model's head, and notes."""
    pretrained, start = recipe.model.pretrained, recipe.start
    if start is not None:
        try:
            load_kept(model, start.weights, where.root, "start.weights", recipe.model.build)
        except TrialError:
            # A study may have removed them since the trial began.
            if all(damage is not None for _, damage in where.examine_checkpoints()):
                raise
        # They come from the pretrained ones, which need not be there any more.
        head = "" if pretrained is None else find_head(model, pretrained.head, outputs)
        return head, (f"begun from {start.weights.name}, into which {start.epochs} epochs went",)
    if pretrained is not None:
        loaded = load_pretrained(model, recipe.model, spec, outputs)
        return loaded.head, () if loaded.note is None else (loaded.note,)
    return "", ()
