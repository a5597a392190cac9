"""What is minimised, and what the model's outputs mean under it.

Every loss is a mean over examples of a number that each example has by itself. So the mean over several batches,
weighted by their sizes, is the loss of one batch of all of them, also under class weights: accumulation is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trials.data.target import Target
from trials.errors import TrialError
from trials.recipe import Bce, CrossEntropy, Focal, Huber, Loss, Mse

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Outputs (N, K) and targets (N,) -> the loss of each example (N,), float32."""

DEFAULT_LOSSES: dict[str, Loss] = {
    "classification": CrossEntropy(name="cross_entropy"),
    "regression": Mse(name="mse"),
}


def cross_entropy(outputs: Tensor, targets: Tensor, section: CrossEntropy) -> Tensor:
    """Of each example (N,), with label smoothing (arXiv:1512.00567, section 7)."""
    return functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=section.label_smoothing)


def focal(outputs: Tensor, targets: Tensor, section: Focal) -> Tensor:
    """``(1 - p)^gamma * -log p`` of each example (N,), with p the probability of its class (arXiv:1708.02002)."""
    entropy = functional.cross_entropy(outputs, targets, reduction="none")
    # 1 - exp(-entropy) without cancellation; above zero, where its power would have no derivative.
    doubt = -torch.expm1(-entropy)
    return doubt.clamp_min(torch.finfo(doubt.dtype).tiny) ** section.gamma * entropy


def bce(outputs: Tensor, targets: Tensor, section: Bce) -> Tensor:
    """Mean over the classes of each one's binary cross entropy against all others, of each example (N,)."""
    classes = outputs.shape[1]
    goals = functional.one_hot(targets, classes).to(outputs.dtype)
    goals = goals * (1.0 - section.label_smoothing) + section.label_smoothing / classes
    return functional.binary_cross_entropy_with_logits(outputs, goals, reduction="none").mean(dim=1)


def mse(outputs: Tensor, targets: Tensor, _section: Mse) -> Tensor:
    """Squared error of each example (N,)."""
    return functional.mse_loss(outputs.squeeze(1), targets, reduction="none")


def huber(outputs: Tensor, targets: Tensor, section: Huber) -> Tensor:
    """Half the squared error up to ``delta``, linear beyond, of each example (N,) (Huber, 1964)."""
    return functional.huber_loss(outputs.squeeze(1), targets, reduction="none", delta=section.delta)


LOSSES: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "bce": bce,
    "mse": mse,
    "huber": huber,
}


def chosen_loss(section: Loss | None, target: Target) -> Loss:
    """What the recipe says, or the default of the task."""
    return DEFAULT_LOSSES[target.task] if section is None else section


def class_weights(section: CrossEntropy | Focal | Bce, target: Target) -> tuple[float, ...] | None:
    """The weight of each class; ``None`` if all count alike.

    ``balanced`` is ``n / (classes * count)``: the weights of the n training examples have mean 1. Raises
    ``TrialError`` for a list of another length than there are classes.

    >>> class_weights(CrossEntropy(name="cross_entropy", class_weights="balanced"),
    ...               Target("classification", ("cat", "dog"), counts=(1, 3)))
    (2.0, 0.6666666666666666)
    """
    said = section.class_weights
    if said == "none":
        return None
    if said == "balanced":
        total = sum(target.counts)
        return tuple(total / (len(target.counts) * count) for count in target.counts)
    if len(said) != len(target.classes):
        raise TrialError(
            f"train.loss.class_weights: found {len(said)} weights, expected {len(target.classes)}, "
            f"one for each class: {', '.join(target.classes)}"
        )
    return said


def build_loss(section: Loss | None, target: Target, device: torch.device) -> LossFunction:
    """The loss of each example, class weights included. Raises ``TrialError`` for weights that do not fit."""
    chosen = chosen_loss(section, target)
    function = LOSSES[chosen.name]
    weights = class_weights(chosen, target) if isinstance(chosen, CrossEntropy | Focal | Bce) else None
    if weights is None:
        return lambda outputs, targets: function(outputs, targets, chosen)
    by_class = torch.tensor(weights, device=device)
    return lambda outputs, targets: function(outputs, targets, chosen) * by_class[targets]


def mean_loss(
    loss: LossFunction, outputs: Tensor, targets: Tensor, blend: tuple[Tensor, float] | None = None
) -> Tensor:
    """The mean of ``loss`` over a batch, a scalar.

    ``blend`` is ``(other targets (N,), lam)``: the loss is then ``lam * L(targets) + (1 - lam) * L(other)``
    (arXiv:1710.09412).
    """
    mean = loss(outputs, targets).mean()
    if blend is None:
        return mean
    other, lam = blend
    return lam * mean + (1.0 - lam) * loss(outputs, other).mean()


def class_scores(outputs: Tensor, section: Loss | None) -> Tensor:
    """Outputs (N, classes) as scores whose softmax is the probabilities.

    Under ``bce`` an output is the logit of one class against all others, and the probabilities are the sigmoids scaled
    to a sum of 1, which is the softmax of their logarithms.
    """
    return functional.logsigmoid(outputs) if isinstance(section, Bce) else outputs


def correct_count(outputs: Tensor, targets: Tensor, blend: tuple[Tensor, float] | None = None) -> Tensor:
    """How many of ``outputs`` (N, classes) have their largest entry at ``targets`` (N,), a float scalar on the device.

    With a ``blend``, a hit on either label counts for its share.
    """
    guesses = outputs.argmax(dim=1)
    hits = (guesses == targets).sum(dtype=torch.float32)
    if blend is None:
        return hits
    other, lam = blend
    return lam * hits + (1.0 - lam) * (guesses == other).sum(dtype=torch.float32)


def absolute_error(outputs: Tensor, targets: Tensor, blend: tuple[Tensor, float] | None = None) -> Tensor:
    """Sum of the absolute errors of ``outputs`` (N, 1), a scalar on the device; with a ``blend``, by shares."""
    guesses = outputs.squeeze(1)
    error = (guesses - targets).abs().sum()
    if blend is None:
        return error
    other, lam = blend
    return lam * error + (1.0 - lam) * (guesses - other).abs().sum()
