"""Ensembles: which models' answers to average, and with what shares, judged on one split.

The best so many together, or greedy selection with replacement (Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble
selection from libraries of models", ICML 2004). Neither is worse than the best single model on the split that chose it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.data import Target
from trials.fit.evaluate import JUDGES
from trials.result import METRICS


@dataclass(frozen=True)
class Worth:
    """What a mean of answers is worth."""

    value: float
    """On the metric."""
    loss: float
    """By which equal values are decided, as on the leaderboard."""

    def rank(self, metric: str) -> tuple[float, float]:
        """What sorts the best first; answers that are no numbers come last."""
        if math.isnan(self.loss):
            return math.inf, math.inf
        return (-self.value if METRICS[metric] == "maximize" else self.value), self.loss


@dataclass(frozen=True)
class Chosen:
    """Models that answer together."""

    shares: tuple[float, ...]
    """The weight of each model in the mean, in the order in which the models were given; 0 for one that is left out.
    Their sum is 1."""
    choices: tuple[int, ...]
    """The models in the order in which they were chosen, the best single one first; also those after the best size."""
    curve: tuple[Worth, ...]
    """What the mean of the first 1, 2, ... of the choices is worth."""
    size: int
    """How many of them are in."""


def judge_mean(answers: Tensor, targets: Tensor, target: Target, metric: str) -> Worth:
    """What mean answers are worth: probabilities (N, classes), or standardised values (N, 1), against targets (N,)."""
    outputs = answers.log() if target.task == "classification" else answers
    metrics = JUDGES[target.task](outputs, targets, target, None).metrics
    return Worth(metrics[metric.removeprefix("validation.")], metrics["loss"])


def best_first(answers: Tensor, targets: Tensor, target: Target, metric: str) -> list[int]:
    """The models whose answers (K, N, C) these are, the best first; of equals, the earlier."""
    worths = [judge_mean(each, targets, target, metric) for each in answers]
    return sorted(range(len(worths)), key=lambda index: worths[index].rank(metric))


def size_curve(answers: Tensor, targets: Tensor, target: Target, metric: str) -> tuple[Worth, ...]:
    """What the mean of the first 1, 2, ... K models is worth, in the order in which they are given.

    Args:
        answers: (K, N, C) probabilities, or (K, N, 1) standardised values; float64 for means without rounding.
        targets: (N,) class indices, or standardised numbers.
        target: what they mean.
        metric: a key of `trials.result.METRICS`.
    """
    sums = answers.cumsum(dim=0)
    return tuple(judge_mean(sums[k] / (k + 1), targets, target, metric) for k in range(len(sums)))


def top_ensemble(answers: Tensor, targets: Tensor, target: Target, metric: str, most: int) -> Chosen:
    """The best models (see :func:`size_curve`), as many as are best together, at most ``most``; of equals, the fewer.

    >>> import torch
    >>> right, wrong = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    >>> target = Target("classification", ("cat", "dog"))
    >>> chosen = top_ensemble(torch.stack([wrong, right]), torch.tensor([0, 1]), target, "validation.accuracy", 2)
    >>> chosen.shares, [worth.value for worth in chosen.curve]
    ((0.0, 1.0), [1.0, 0.5])
    """
    order = best_first(answers, targets, target, metric)[:most]
    return _best_prefix(order, size_curve(answers[order], targets, target, metric), len(answers), metric)


def greedy_ensemble(answers: Tensor, targets: Tensor, target: Target, metric: str, most: int) -> Chosen:
    """Models chosen one after another, with replacement, each the one with which the mean is best.

    Begins with the best model, makes ``most`` choices, and takes as many of the first of them as are best together; of
    equals the fewer. Of equal choices, the earlier model. Arguments as of :func:`size_curve`.
    """
    choices: list[int] = []
    curve: list[Worth] = []
    total = torch.zeros_like(answers[0])
    for size in range(1, most + 1):
        worths = [judge_mean((total + each) / size, targets, target, metric) for each in answers]
        index = _best_of(worths, metric)
        choices.append(index)
        curve.append(worths[index])
        total = total + answers[index]
    return _best_prefix(choices, curve, len(answers), metric)


CHOOSERS: dict[str, Callable[[Tensor, Tensor, Target, str, int], Chosen]] = {
    "top_ensemble": top_ensemble,
    "greedy_ensemble": greedy_ensemble,
}
"""By the name in a recipe's ``assembly``."""


def _best_of(worths: Sequence[Worth], metric: str) -> int:
    """The index of the best; of equals, the first."""
    return min(range(len(worths)), key=lambda index: worths[index].rank(metric))


def _best_prefix(choices: Sequence[int], curve: Sequence[Worth], models: int, metric: str) -> Chosen:
    size = _best_of(curve, metric) + 1
    counts = Counter(choices[:size])
    shares = tuple(counts[index] / size for index in range(models))
    return Chosen(shares, tuple(choices), tuple(curve), size)
