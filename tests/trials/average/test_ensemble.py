"""Ensembles equal what can be worked out by hand, and a slow twin that tries everything anew."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from trials.average.ensemble import CHOOSERS, Chosen, best_first, greedy_ensemble, size_curve, top_ensemble
from trials.data import Target
from trials.result import METRICS, TASK_METRICS

CATS = Target("classification", ("cat", "dog", "owl"))
PRICES = Target("regression", mean=7.0, std=2.0)
Case = tuple[Tensor, Tensor, Target]


def random_case(seed: int, task: str, models: int = 4, count: int = 12) -> Case:
    """Answers a little better than chance, so that combining them matters."""
    draws = torch.Generator().manual_seed(seed)
    if task == "regression":
        targets = torch.randn(count, generator=draws)
        noise = torch.randn(models, count, 1, generator=draws, dtype=torch.float64)
        return targets.double()[:, None] + noise, targets, PRICES
    targets = torch.randint(3, (count,), generator=draws)
    scores = torch.randn(models, count, 3, generator=draws, dtype=torch.float64)
    scores += 0.7 * torch.nn.functional.one_hot(targets, 3)
    return scores.softmax(dim=2), targets, CATS


def slow_worth(answers: list[np.ndarray], targets: np.ndarray, metric: str) -> tuple[float, float]:
    """Rank (the less the better) of the plain mean of ``answers``: by the metric, then by the loss."""
    mean = np.mean(answers, axis=0)
    if mean.shape[1] == 1:
        errors = mean[:, 0] - targets
        loss = float(np.mean(errors**2))
        spread = float(np.mean((targets - targets.mean()) ** 2))
        worth = {"loss": loss, "mae": np.abs(errors).mean() * 2, "rmse": math.sqrt(loss) * 2, "r2": 1 - loss / spread}
    else:
        hits = mean.argmax(axis=1) == targets
        loss = float(np.mean([-math.log(row[target]) for row, target in zip(mean, targets, strict=True)]))
        recall = [hits[targets == label].mean() for label in np.unique(targets)]
        worth = {"loss": loss, "accuracy": hits.mean(), "balanced_accuracy": np.mean(recall), "top5_accuracy": 1.0}
    value = float(worth[metric.removeprefix("validation.")])
    return round(-value if METRICS[metric] == "maximize" else value, 9), round(loss, 9)


def slow_greedy(answers: np.ndarray, targets: np.ndarray, metric: str, most: int) -> list[float]:
    bag: list[int] = []
    bags = []
    for _ in range(most):
        tried = [(slow_worth([answers[i] for i in [*bag, new]], targets, metric), new) for new in range(len(answers))]
        bag = [*bag, min(tried)[1]]
        bags.append((slow_worth([answers[i] for i in bag], targets, metric), len(bag), bag))
    best = min(bags)[2]
    return [best.count(model) / len(best) for model in range(len(answers))]


def slow_top(answers: np.ndarray, targets: np.ndarray, metric: str, most: int) -> list[float]:
    order = sorted(range(len(answers)), key=lambda i: (slow_worth([answers[i]], targets, metric), i))
    sizes = [
        (slow_worth([answers[i] for i in order[:size]], targets, metric), size)
        for size in range(1, min(most, len(order)) + 1)
    ]
    best = min(sizes)[1]
    return [1 / best if model in order[:best] else 0.0 for model in range(len(answers))]


TWINS = {"top_ensemble": slow_top, "greedy_ensemble": slow_greedy}
EVERY_METRIC = [(task, metric) for task, metrics in TASK_METRICS.items() for metric in metrics]


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(("task", "metric"), EVERY_METRIC)
@pytest.mark.parametrize("most", [1, 3, 6])
def test_it_is_what_a_slow_twin_finds_and_never_worse_than_the_best_single(
    name: str, task: str, metric: str, most: int
) -> None:
    several = 0
    for seed in range(6):
        answers, targets, target = random_case(seed, task)
        chosen = CHOOSERS[name](answers, targets, target, metric, most)
        numbers, wanted = answers.numpy(), targets.double().numpy()
        wanted = targets.numpy() if task == "classification" else wanted
        assert chosen.shares == pytest.approx(TWINS[name](numbers, wanted, metric, most))
        assert math.fsum(chosen.shares) == pytest.approx(1.0)
        together = slow_worth([np.tensordot(chosen.shares, numbers, 1)], wanted, metric)
        assert together <= min(slow_worth([each], wanted, metric) for each in numbers)
        several += sum(share > 0 for share in chosen.shares) > 1
    assert (several > 0) == (most > 1), "cases in which combining helps"


def right_and_wrong(*rows: str) -> Tensor:
    """One model a row: an ``r`` is sure of class 0 (0.9), an ``h`` nearly so (0.6), a ``w`` is sure of another."""
    probabilities = {"r": (0.9, 0.05, 0.05), "h": (0.6, 0.3, 0.1), "w": (0.1, 0.8, 0.1)}
    return torch.tensor([[probabilities[letter] for letter in row] for row in rows], dtype=torch.float64)


ALL_FIRST = torch.zeros(3, dtype=torch.int64)


def test_the_size_curve_by_hand() -> None:
    """Each is right on two of three; any two of them on all three, since 0.9 and 0.1 make 0.5 against 0.425."""
    answers = right_and_wrong("rrw", "rwr", "wwr")
    curve = size_curve(answers, ALL_FIRST, CATS, "validation.accuracy")
    # Of three: (0.9 + 0.9 + 0.1) / 3 on the first, (0.9 + 0.1 + 0.1) / 3 against (0.05 + 0.8 + 0.8) / 3 on the second.
    assert [worth.value for worth in curve] == pytest.approx([2 / 3, 1.0, 2 / 3])
    assert curve[1].loss == pytest.approx(-(math.log(0.9) + 2 * math.log(0.5)) / 3)
    chosen = top_ensemble(answers, ALL_FIRST, CATS, "validation.accuracy", most=3)
    assert (chosen.shares, chosen.size, chosen.choices) == ((0.5, 0.5, 0.0), 2, (0, 1, 2))
    assert chosen.curve == curve


def test_the_best_come_first_whatever_the_order_in_which_they_are_given() -> None:
    answers = right_and_wrong("www", "rrr", "rrw")
    assert best_first(answers, ALL_FIRST, CATS, "validation.accuracy") == [1, 2, 0]
    assert top_ensemble(answers, ALL_FIRST, CATS, "validation.accuracy", most=3).shares == (0.0, 1.0, 0.0)


def test_equal_accuracies_are_decided_by_the_lower_loss() -> None:
    """All are right everywhere, so that the accuracy says nothing."""
    answers = right_and_wrong("rhh", "rrr", "hhh")
    assert best_first(answers, ALL_FIRST, CATS, "validation.accuracy") == [1, 0, 2]
    for choose in CHOOSERS.values():
        assert choose(answers, ALL_FIRST, CATS, "validation.accuracy", 3).shares == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("name", TWINS)
def test_of_equals_the_fewer_and_the_earlier(name: str) -> None:
    answers = right_and_wrong("rrw", "rrw", "rrw")
    chosen = CHOOSERS[name](answers, ALL_FIRST, CATS, "validation.loss", 3)
    assert (chosen.shares, chosen.size) == ((1.0, 0.0, 0.0), 1)
    assert [worth.value for worth in chosen.curve] == pytest.approx([chosen.curve[0].value] * 3)


def test_greedy_takes_a_model_twice_where_that_is_best() -> None:
    """Values of two models for a target of 0: 1 and -2. Two parts of the first and one of the second meet it."""
    answers = torch.tensor([[[1.0]], [[-2.0]]], dtype=torch.float64)
    chosen = greedy_ensemble(answers, torch.zeros(1), PRICES, "validation.loss", most=5)
    assert chosen.shares == pytest.approx((2 / 3, 1 / 3))
    assert chosen.choices[:3] == (0, 1, 0)
    assert [worth.value for worth in chosen.curve[:3]] == pytest.approx([1.0, 0.25, 0.0])


def test_a_model_that_gives_no_numbers_is_never_chosen() -> None:
    """Although its largest entry, which is the first, would be right everywhere."""
    answers = right_and_wrong("rrr", "wwr")
    answers[0] = math.nan
    for choose in CHOOSERS.values():
        chosen: Chosen = choose(answers, ALL_FIRST, CATS, "validation.accuracy", 4)
        assert chosen.shares == (0.0, 1.0)


def test_a_probability_of_zero_is_no_error() -> None:
    sure = torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]], dtype=torch.float64)
    curve = size_curve(sure, torch.zeros(1, dtype=torch.int64), CATS, "validation.loss")
    assert [worth.value for worth in curve] == [math.inf, pytest.approx(math.log(2))]


def test_the_curve_of_more_of_the_same_choices_begins_alike() -> None:
    answers, targets, target = random_case(1, "classification")
    curves = [greedy_ensemble(answers, targets, target, "validation.loss", most).curve for most in (2, 4, 8)]
    for short, long in pairwise(curves):
        assert long[: len(short)] == short
