"""What a trial keeps at its end: raw, ema and best_n weights, each with what it is worth on the selection split."""

from __future__ import annotations

import hashlib
import math

import safetensors.torch
import torch
from torch import nn

from trials.average.batch_norm import refresh_batch_norm
from trials.average.best_n import mean_weights
from trials.checkpoint import TrialFolder, write_weights
from trials.data import Splits
from trials.fit.evaluate import Evaluation, accuracy_digits, evaluate, model_inputs
from trials.fit.fitting import Fitting
from trials.fit.precision import autocast
from trials.history import History
from trials.recipe import Recipe
from trials.result import METRICS, WeightsFile, WeightsKind, is_better
from trials.seed import generator

_ELEMENTS_AT_A_TIME = 2**23
"""Input numbers in one batch while batch norm is measured: one batch of all examples is one pass, not one a layer."""


def evaluation_batch_size(recipe: Recipe) -> int:
    """Examples in a batch without gradients, whose forward pass needs a fraction of the memory of a training step."""
    return 4 * recipe.train.batch_size


def validation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation on the selection split, by the names of a report."""
    return {"validation.loss": evaluation.loss, "validation.accuracy": evaluation.accuracy}


def keep_weights(
    where: TrialFolder, recipe: Recipe, fitting: Fitting, splits: Splits, history: History
) -> tuple[tuple[WeightsFile, ...], tuple[str, ...]]:
    """Write the weights worth keeping, best first by the recipe's metric, and notes about what was decided.

    The mean of the best epochs is kept only if it is not worse than all the others; no average is kept whose loss is
    not finite. Leaves ``fitting.model`` with whichever weights were made last.
    """
    epoch = history.chosen_epoch
    if epoch != history.epochs:
        fitting.model.load_state_dict(safetensors.torch.load_file(where.best_weights(epoch)))
    kept = [_keep(where, "raw", fitting.model, history.of_kind(epoch, "raw"), epoch)]
    notes = [_early_stop_note(recipe, history)] if history.stopped_early else []
    if fitting.ema is not None:
        if epoch != history.epochs:
            fitting.ema.model.load_state_dict(safetensors.torch.load_file(where.best_weights(epoch, "ema")))
        metrics = _refresh_and_evaluate(fitting.ema.model, recipe, splits, fitting.device)
        if _is_finite(metrics):
            kept.append(_keep(where, "ema", fitting.ema.model, metrics, epoch))
        else:
            notes.append(_not_finite_note("ema", metrics))
    if len(history.averaged_epochs) > 1:
        mean = mean_weights([where.best_weights(number) for number in history.averaged_epochs])
        fitting.model.load_state_dict(mean)
        metrics = _refresh_and_evaluate(fitting.model, recipe, splits, fitting.device)
        best = _best_first(kept, recipe.metric)[0]
        if not _is_finite(metrics):
            notes.append(_not_finite_note("best_n", metrics))
        elif is_better(recipe.metric, best.metrics[recipe.metric], than=metrics[recipe.metric]):
            notes.append(_best_n_note(recipe.metric, metrics, best, len(splits.selection)))
        else:
            kept.append(_keep(where, "best_n", fitting.model, metrics, max(history.averaged_epochs)))
    elif recipe.average.best_n > 1:
        notes.append(f"best_n not made: found {history.epochs} epoch, expected at least 2")
    return tuple(_best_first(kept, recipe.metric)), tuple(notes)


def refresh_from_training_split(model: nn.Module, recipe: Recipe, splits: Splits, device: torch.device) -> None:
    """Measure batch norm anew on `average.batch_norm_samples` training examples, as the model will meet others:
    without augmentation."""
    split = splits.train
    order = torch.randperm(len(split), generator=generator(torch.device("cpu"), recipe.seed, "batch_norm"))
    inputs = split.inputs[order[: recipe.average.batch_norm_samples].to(split.inputs.device)]
    batch_size = max(evaluation_batch_size(recipe), _ELEMENTS_AT_A_TIME // inputs[0].numel())
    with autocast(recipe.train.precision, device):
        refresh_batch_norm(model, inputs, batch_size, lambda raw: model_inputs(raw, splits.preprocess, device))


def _refresh_and_evaluate(model: nn.Module, recipe: Recipe, splits: Splits, device: torch.device) -> dict[str, float]:
    refresh_from_training_split(model, recipe, splits, device)
    return validation_metrics(
        evaluate(
            model, splits.selection, splits.preprocess, device, evaluation_batch_size(recipe), recipe.train.precision
        )
    )


def _keep(
    where: TrialFolder, kind: WeightsKind, model: nn.Module, metrics: dict[str, float], epoch: int
) -> WeightsFile:
    path = where.kept_weights(kind)
    write_weights(path, model.state_dict())
    content = path.read_bytes()
    return WeightsFile(
        kind=kind,
        path=path.relative_to(where.root).as_posix(),
        metrics=metrics,
        epoch=epoch,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _best_first(kept: list[WeightsFile], metric: str) -> list[WeightsFile]:
    return sorted(kept, key=lambda file: file.metrics[metric], reverse=METRICS[metric] == "maximize")


def _is_finite(metrics: dict[str, float]) -> bool:
    return all(map(math.isfinite, metrics.values()))


def _not_finite_note(kind: WeightsKind, metrics: dict[str, float]) -> str:
    return f"{kind} not kept: its validation loss is {metrics['validation.loss']}"


def _early_stop_note(recipe: Recipe, history: History) -> str:
    section = recipe.train.early_stop
    assert section is not None
    return (
        f"stopped early after epoch {history.epochs} of {recipe.train.epochs}: no better {recipe.metric} in "
        f"{section.patience_epochs} epochs; the weights are of epoch {history.chosen_epoch}"
    )


def _best_n_note(metric: str, metrics: dict[str, float], best: WeightsFile, count: int) -> str:
    digits = accuracy_digits(count) + 1 if metric == "validation.accuracy" else 4
    return (
        f"best_n not kept: its {metric} of {metrics[metric]:.{digits}f} is worse than "
        f"the {best.metrics[metric]:.{digits}f} of {best.kind}"
    )
