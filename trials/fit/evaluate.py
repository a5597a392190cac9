"""Evaluation over a whole split, with the uncertainty that its size leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from trials.data import Preprocess, Split, Splits, Target
from trials.fit.distributed import ALONE, Ranks
from trials.fit.loss import class_scores
from trials.fit.precision import autocast
from trials.recipe import Loss, Recipe

Z95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on a split of ``count`` examples."""

    metrics: dict[str, float]
    """By short name: ``loss`` and what else the task has (``trials.result.TASK_METRICS``)."""
    count: int
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals of those metrics that have one."""

    @property
    def loss(self) -> float:
        """Mean negative log-probability of the right class, or mean squared error of the standardised target."""
        return self.metrics["loss"]


def evaluation_batch_size(recipe: Recipe) -> int:
    """Examples in a batch without gradients, whose forward pass needs a fraction of the memory of a training step.

    Never more than ``train.micro_batch``: where memory is that short, a fraction may still be too much.
    """
    several = 4 * recipe.train.batch_size
    return several if recipe.train.micro_batch is None else min(several, recipe.train.micro_batch)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; from the host to a GPU through pinned memory, so that nothing waits for the copy."""
    if tensor.device == device:
        return tensor
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def model_inputs(raw: Tensor, preprocess: Preprocess, device: torch.device, channels_last: bool = True) -> Tensor:
    """Raw inputs (N, ...), on any device, as the model takes them: normalised, on ``device``, images channels last."""
    inputs = preprocess.normalise(on_device(raw, device))
    return inputs.contiguous(memory_format=torch.channels_last) if channels_last and inputs.ndim == 4 else inputs


def evaluate(
    model: nn.Module, split: Split, splits: Splits, recipe: Recipe, device: torch.device, ranks: Ranks = ALONE
) -> Evaluation:
    """What ``model`` is worth in eval mode over all of ``split``, one of ``splits``; the model's mode is put back.

    Every number is taken over all examples at once: a mean of batch means would give the examples of a short last
    batch too much weight. Each of ``ranks`` runs its share of the batches, and all are told the same.
    """
    if ranks.size == 1:
        outputs = predict(model, split.inputs, splits.preprocess, recipe, device)
    else:
        spans = ranks.spans(len(split), evaluation_batch_size(recipe))
        start, stop = spans[ranks.rank]
        outputs = torch.empty(len(split), splits.target.outputs, device=device)
        if stop > start:
            outputs[start:stop] = predict(model, split.inputs[start:stop], splits.preprocess, recipe, device)
        ranks.exchange(outputs, spans)
    judge = JUDGES[splits.target.task]
    return ranks.agree(lambda: judge(outputs, on_device(split.targets, device), splits.target, recipe.output_loss))


def predict(model: nn.Module, inputs: Tensor, preprocess: Preprocess, recipe: Recipe, device: torch.device) -> Tensor:
    """The model's outputs (N, K) in eval mode for ``inputs`` as a split holds them, float32 on ``device``."""
    was_training = model.training
    model.eval()
    outputs = []
    try:
        with torch.no_grad(), autocast(recipe.train.precision, device):
            for part in torch.split(inputs, evaluation_batch_size(recipe)):
                batch = model_inputs(part, preprocess, device, recipe.train.channels_last)
                outputs.append(model(batch).float())
    finally:
        model.train(was_training)
    return torch.cat(outputs)


def judge_classes(outputs: Tensor, targets: Tensor, target: Target, loss: Loss | None) -> Evaluation:
    """Loss, accuracy, balanced accuracy and top-5 accuracy of outputs (N, classes), read by ``loss``, against targets
    (N,).

    Balanced accuracy is the mean recall of the classes that occur. With five classes or fewer, the top-5 accuracy is 1.
    """
    count, classes = outputs.shape
    scores = class_scores(outputs, loss)
    losses = functional.cross_entropy(scores, targets, reduction="none")
    hits = scores.argmax(dim=1) == targets
    near = (scores.topk(min(5, classes), dim=1).indices == targets[:, None]).any(dim=1)
    correct, near_correct = int(hits.sum()), int(near.sum())
    of_class = torch.bincount(targets, minlength=len(target.classes)).tolist()
    right_of_class = torch.bincount(targets[hits], minlength=len(target.classes)).tolist()
    recalls = [right / of for right, of in zip(right_of_class, of_class, strict=True) if of]
    metrics = {
        "loss": _mean(losses),
        "accuracy": correct / count,
        "balanced_accuracy": math.fsum(recalls) / len(recalls),
        "top5_accuracy": near_correct / count,
    }
    intervals = {
        "accuracy": wilson_interval(correct, count),
        "top5_accuracy": wilson_interval(near_correct, count),
    }
    return Evaluation(metrics, count, intervals)


def judge_numbers(outputs: Tensor, targets: Tensor, target: Target, _loss: Loss | None) -> Evaluation:
    """Loss, mean absolute error, root mean squared error and R2 of outputs (N, 1) against standardised targets (N,).

    ``mae`` and ``rmse`` are in units of the target. R2 compares with the mean of these targets; where these are all
    alike it is 1 if they are met and 0 if not.
    """
    wanted = targets.double().cpu()
    errors = outputs.squeeze(1).double().cpu() - wanted
    squares, sizes = errors.square(), errors.abs() * target.std
    loss = _mean(squares)
    spread = float((wanted - wanted.mean()).square().sum())
    missed = float(squares.sum())
    r2 = 1.0 - missed / spread if spread > 0 else float(missed == 0)
    metrics = {"loss": loss, "mae": _mean(sizes), "rmse": math.sqrt(loss) * target.std, "r2": r2}
    low, high = normal_interval(squares)
    intervals = {
        "mae": normal_interval(sizes),
        "rmse": (math.sqrt(max(low, 0.0)) * target.std, math.sqrt(max(high, 0.0)) * target.std),
    }
    return Evaluation(metrics, len(errors), intervals)


JUDGES: dict[str, Callable[[Tensor, Tensor, Target, Loss | None], Evaluation]] = {
    "classification": judge_classes,
    "regression": judge_numbers,
}


def _mean(values: Tensor) -> float:
    return math.fsum(values.tolist()) / len(values)


def wilson_interval(correct: int, count: int, z: float = Z95) -> tuple[float, float]:
    """The interval that holds the true accuracy with 95 % confidence (E. B. Wilson, JASA 22, 1927).

    It stays within [0, 1] and has a width even at 0 % and 100 %.
    """
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # At 0 % and 100 % an end is exactly 0 or 1; rounding must not carry it past.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == count else centre + half
    return low, high


def normal_interval(values: Tensor, z: float = Z95) -> tuple[float, float]:
    """The interval that holds the true mean of such ``values`` (N,) with 95 % confidence, by the central limit theorem.

    A single value leaves nothing to judge its spread by: the interval is then the value itself.
    """
    mean = _mean(values)
    half = z * float(values.std(correction=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean - half, mean + half


def accuracy_digits(count: int) -> int:
    """Decimals of an accuracy that a split of ``count`` examples supports: one example must move the last one.

    >>> accuracy_digits(100), accuracy_digits(360), accuracy_digits(10000)
    (2, 2, 4)
    """
    return len(str(count)) - 1
