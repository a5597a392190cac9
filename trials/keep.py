"""What a trial keeps at its end: raw, ema, swa and best_n weights, each with its worth on the selection split, by which
it is judged, and on what is set aside to confirm the choices that are made."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import safetensors.torch
import torch
from torch import nn

from trials.average.batch_norm import refresh_batch_norm
from trials.average.best_n import mean_weights
from trials.average.swa import snapshots_until
from trials.checkpoint import TrialFolder, write_weights
from trials.data import Splits
from trials.fit.evaluate import Evaluation, accuracy_digits, evaluate, evaluation_batch_size, model_inputs
from trials.fit.fitting import Fitting
from trials.fit.precision import autocast
from trials.history import History
from trials.recipe import Recipe
from trials.result import METRICS, WeightsFile, WeightsKind, is_better
from trials.seed import generator

_AT_ONCE_ELEMENTS = 2**29
"""Numbers that a layer may be given while batch norm is measured in one pass of all examples, and not in one a layer:
2 GiB, and a forward pass holds two or three of that size."""


def validation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation on the selection split, by the names of a report."""
    return {f"validation.{name}": value for name, value in evaluation.metrics.items()}


def confirm_metrics(model: nn.Module, recipe: Recipe, splits: Splits, device: torch.device) -> dict[str, float]:
    """What ``model`` is worth on what ``data.confirm`` sets aside: ``confirm.loss`` and the others of the task.

    Nothing where nothing is set aside; what is not a finite number is left out.
    """
    if splits.confirm is None:
        return {}
    found = evaluate(model, splits.confirm, splits, recipe, device).metrics
    return {f"confirm.{name}": value for name, value in found.items() if math.isfinite(value)}


def kept_metrics(model: nn.Module, recipe: Recipe, splits: Splits, device: torch.device) -> dict[str, float]:
    """All that is written beside a file of weights: ``validation.*``, and ``confirm.*`` if any is set aside."""
    validation = validation_metrics(evaluate(model, splits.selection, splits, recipe, device))
    return validation | confirm_metrics(model, recipe, splits, device)


def keep_weights(
    where: TrialFolder, recipe: Recipe, fitting: Fitting, splits: Splits, history: History
) -> tuple[tuple[WeightsFile, ...], tuple[str, ...]]:
    """Write the weights worth keeping, best first by the recipe's metric, and notes about what was decided.

    The mean of the best epochs is kept only if it is not worse than all the others; no average is kept whose loss is
    not finite. Leaves ``fitting.model`` with whichever weights were made last.
    """
    keeping = _Keeping(where, recipe, splits, fitting.device)
    if history.stopped_early:
        keeping.notes.append(_early_stop_note(recipe, history))
    _keep_raw(keeping, fitting, history)
    _keep_ema(keeping, fitting, history)
    _keep_swa(keeping, fitting, history)
    _keep_best_n(keeping, fitting, history)
    return tuple(keeping.best_first()), tuple(keeping.notes)


@dataclass
class _Keeping:
    """The files kept so far, and what is needed to keep one more."""

    where: TrialFolder
    recipe: Recipe
    splits: Splits
    device: torch.device
    files: list[WeightsFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def keep(self, kind: WeightsKind, model: nn.Module, metrics: dict[str, float], epoch: int) -> None:
        """Write the model's weights, and beside their ``metrics`` what they are worth on the examples set aside."""
        path = self.where.kept_weights(kind, len(self.recipe.extensions))
        write_weights(path, model.state_dict())
        content = path.read_bytes()
        self.files.append(
            WeightsFile(
                kind=kind,
                path=path.relative_to(self.where.root).as_posix(),
                metrics=metrics | confirm_metrics(model, self.recipe, self.splits, self.device),
                epoch=epoch,
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )

    def worth_of_average(self, kind: WeightsKind, model: nn.Module) -> dict[str, float] | None:
        """What an average is worth with its batch norm measured anew; ``None``, with a note, if that is no number."""
        refresh_from_training_split(model, self.recipe, self.splits, self.device)
        metrics = validation_metrics(evaluate(model, self.splits.selection, self.splits, self.recipe, self.device))
        if all(map(math.isfinite, metrics.values())):
            return metrics
        self.notes.append(f"{kind} not kept: its validation loss is {metrics['validation.loss']}")
        return None

    def best_first(self) -> list[WeightsFile]:
        metric = self.recipe.metric
        return sorted(self.files, key=lambda file: file.metrics[metric], reverse=METRICS[metric] == "maximize")


def _keep_raw(keeping: _Keeping, fitting: Fitting, history: History) -> None:
    epoch = history.chosen_epoch
    if epoch != history.epochs:
        fitting.model.load_state_dict(safetensors.torch.load_file(keeping.where.whole_best_weights(epoch)))
    keeping.keep("raw", fitting.model, history.of_kind(epoch, "raw"), epoch)


def _keep_ema(keeping: _Keeping, fitting: Fitting, history: History) -> None:
    if fitting.ema is None:
        return
    model, epoch = fitting.ema.model, history.chosen_epoch
    if epoch != history.epochs:
        model.load_state_dict(safetensors.torch.load_file(keeping.where.whole_best_weights(epoch, "ema")))
    metrics = keeping.worth_of_average("ema", model)
    if metrics is not None:
        keeping.keep("ema", model, metrics, epoch)


def _keep_swa(keeping: _Keeping, fitting: Fitting, history: History) -> None:
    section = keeping.recipe.train.swa
    if fitting.swa is None or section is None:
        return
    if snapshots_until(history.epochs, section, keeping.recipe.train.epochs) == 0:
        keeping.notes.append(
            f"swa not made: training ended after epoch {history.epochs}, before the first snapshot was due"
        )
        return
    metrics = keeping.worth_of_average("swa", fitting.swa.model)
    if metrics is not None:
        keeping.keep("swa", fitting.swa.model, metrics, history.epochs)


def _keep_best_n(keeping: _Keeping, fitting: Fitting, history: History) -> None:
    recipe, epochs = keeping.recipe, history.averaged_epochs
    if recipe.average.best_n < 2:
        return
    if len(epochs) < 2:
        keeping.notes.append(f"best_n not made: found {history.epochs} epoch, expected at least 2")
        return
    fitting.model.load_state_dict(mean_weights([keeping.where.whole_best_weights(epoch) for epoch in epochs]))
    metrics = keeping.worth_of_average("best_n", fitting.model)
    if metrics is None:
        return
    best = keeping.best_first()[0]
    if is_better(recipe.metric, best.metrics[recipe.metric], than=metrics[recipe.metric]):
        keeping.notes.append(_best_n_note(recipe.metric, metrics, best, len(keeping.splits.selection)))
    else:
        keeping.keep("best_n", fitting.model, metrics, max(epochs))


def refresh_from_training_split(model: nn.Module, recipe: Recipe, splits: Splits, device: torch.device) -> None:
    """Measure batch norm anew on `average.batch_norm_samples` training examples, as the model will meet others:
    without augmentation."""
    split = splits.train
    order = torch.randperm(len(split), generator=generator(torch.device("cpu"), recipe.seed, "batch_norm"))
    inputs = split.inputs[order[: recipe.average.batch_norm_samples].to(split.inputs.device)]
    at_once = _AT_ONCE_ELEMENTS if recipe.train.micro_batch is None else 0

    def prepare(raw: torch.Tensor) -> torch.Tensor:
        return model_inputs(raw, splits.preprocess, device, recipe.train.channels_last)

    with autocast(recipe.train.precision, device):
        refresh_batch_norm(model, inputs, evaluation_batch_size(recipe), prepare, at_once)


def _early_stop_note(recipe: Recipe, history: History) -> str:
    section = recipe.train.early_stop
    assert section is not None
    return (
        f"stopped early after epoch {history.epochs} of {recipe.epochs}: no better {history.watched} in "
        f"{section.patience_epochs} epochs; the weights are of epoch {history.chosen_epoch}"
    )


def _best_n_note(metric: str, metrics: dict[str, float], best: WeightsFile, count: int) -> str:
    digits = accuracy_digits(count) + 1 if metric == "validation.accuracy" else 4
    return (
        f"best_n not kept: its {metric} of {metrics[metric]:.{digits}f} is worse than "
        f"the {best.metrics[metric]:.{digits}f} of {best.kind}"
    )
