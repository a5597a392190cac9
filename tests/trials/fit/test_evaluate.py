"""K3: evaluation over the whole split, and the interval and digits that its size supports."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_splits import numbers_target, recipe_of, splits_of
from torch import Tensor, nn

from trials.data import Split
from trials.data.target import Target
from trials.fit.evaluate import Evaluation, accuracy_digits, evaluate, normal_interval, wilson_interval

CPU = torch.device("cpu")


class Recording(nn.Module):
    """The identity on logits; dropout would change them if the mode were wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.sizes.append(len(inputs))
        logits: Tensor = self.dropout(inputs)
        return logits


def judged(model: nn.Module, split: Split, target: Target | None = None, **sections: Any) -> Evaluation:
    """By batches of four."""
    recipe = recipe_of({"batch_size": 1, **sections.pop("train", {})}, **sections)
    return evaluate(model, split, splits_of(split, target=target), recipe, CPU)


def test_an_uneven_last_batch_counts_by_its_examples() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(13, 3, generator=generator)
    logits[12] = torch.tensor([50.0, 0.0, 0.0])  # the last batch holds this one alone, and it is far off
    targets = torch.randint(3, (13,), generator=generator)
    targets[12] = 2
    per_example = [
        math.log(sum(math.exp(value) for value in row)) - row[target]
        for row, target in zip(logits.double().tolist(), targets.tolist(), strict=True)
    ]
    model = Recording().train()
    found = judged(model, Split(logits, targets))
    assert model.sizes == [4, 4, 4, 1]
    assert found.loss == pytest.approx(sum(per_example) / 13, rel=1e-6)
    correct = sum(int(row.argmax()) == int(target) for row, target in zip(logits, targets, strict=True))
    assert found.metrics["accuracy"] == correct / 13
    assert found.intervals["accuracy"] == wilson_interval(correct, 13)
    assert found.count == 13
    batch_means = [sum(per_example[start : start + 4]) / len(per_example[start : start + 4]) for start in (0, 4, 8, 12)]
    assert abs(found.loss - sum(batch_means) / 4) > 1  # what a running mean of batches would have said


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_of_the_model_is_put_back_even_after_an_error(training: bool) -> None:
    model = Recording().train(training)
    judged(model, Split(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])))
    assert model.training is training
    broken = nn.Sequential(model, nn.Linear(7, 3)).train(training)
    with pytest.raises(RuntimeError):
        judged(broken, Split(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])))
    assert broken.training is training


def test_wilson_interval_of_published_examples() -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for correct, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson_interval(correct, count) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)
    assert wilson_interval(29, 29)[1] == 1.0


def test_wilson_interval_ends_solve_its_defining_equation() -> None:
    z = 1.959963984540054
    for correct, count in ((3, 10), (97, 100), (360, 1000)):
        for end in wilson_interval(correct, count):
            assert abs(correct / count - end) == pytest.approx(z * math.sqrt(end * (1 - end) / count))


def test_digits_are_those_that_one_example_can_move() -> None:
    assert [accuracy_digits(count) for count in (9, 10, 99, 100, 360, 1000, 10000)] == [0, 1, 1, 2, 2, 3, 4]


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur() -> None:
    """Class 0: 6 of 8 right; class 1: 1 of 2; class 2 occurs nowhere and does not count."""
    guesses = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 1, 0])
    split = Split(torch.nn.functional.one_hot(guesses, 3).float(), torch.tensor([0] * 8 + [1] * 2))
    found = judged(nn.Identity(), split, Target("classification", ("a", "b", "c"), (8, 2, 0)))
    assert found.metrics["accuracy"] == 0.7
    assert found.metrics["balanced_accuracy"] == pytest.approx((6 / 8 + 1 / 2) / 2)


def test_top5_counts_targets_among_the_five_highest() -> None:
    scores = torch.arange(8.0).repeat(4, 1)  # the five highest are 3, 4, 5, 6, 7
    split = Split(scores, torch.tensor([7, 3, 2, 0]))
    target = Target("classification", tuple("abcdefgh"), (1,) * 8)
    assert judged(nn.Identity(), split, target).metrics["top5_accuracy"] == 0.5
    few = Split(torch.zeros(4, 3), torch.tensor([0, 1, 2, 2]))
    assert judged(nn.Identity(), few).metrics["top5_accuracy"] == 1.0


def test_the_loss_is_of_the_probabilities_whatever_was_minimised() -> None:
    """Under bce the probabilities are the sigmoids scaled to one; smoothing, weights and gamma are for training."""
    split = Split(torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]]), torch.tensor([0, 2]))
    target = Target("classification", ("a", "b", "c"), (1, 1, 1))
    softmax = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in split.inputs.tolist()]
    plain = -(math.log(softmax[0][0]) + math.log(softmax[1][2])) / 2
    for loss in (
        None,
        {"name": "cross_entropy", "label_smoothing": 0.3, "class_weights": [9.0, 1.0, 1.0]},
        {"name": "focal"},
    ):
        found = judged(nn.Identity(), split, target, train={"loss": loss})
        assert found.loss == pytest.approx(plain, rel=1e-6)
    sigmoid = [[1 / (1 + math.exp(-v)) for v in row] for row in split.inputs.tolist()]
    scaled = -(math.log(sigmoid[0][0] / sum(sigmoid[0])) + math.log(sigmoid[1][2] / sum(sigmoid[1]))) / 2
    assert judged(nn.Identity(), split, target, train={"loss": {"name": "bce"}}).loss == pytest.approx(scaled, rel=1e-6)


def test_a_number_is_judged_in_its_own_unit() -> None:
    """Standardised errors 1, -2, 0, 2 at a standard deviation of 10."""
    predicted, wanted = torch.tensor([[1.0], [0.0], [3.0], [6.0]]), torch.tensor([0.0, 2.0, 3.0, 4.0])
    regression = {"data": {"task": "regression"}}
    found = judged(nn.Identity(), Split(predicted, wanted), numbers_target(mean=500.0, std=10.0), **regression)
    assert found.loss == pytest.approx((1 + 4 + 0 + 4) / 4)
    assert found.metrics["mae"] == pytest.approx(10 * (1 + 2 + 0 + 2) / 4)
    assert found.metrics["rmse"] == pytest.approx(10 * math.sqrt(9 / 4))
    # The mean of what was wanted is 2.25; the squared distances from it add up to 8.75.
    assert found.metrics["r2"] == pytest.approx(1 - 9 / 8.75)
    half = 1.959963984540054 * math.sqrt(((1 - 1.25) ** 2 + (2 - 1.25) ** 2 * 2 + 1.25**2) / 3) / 2
    assert found.intervals["mae"] == pytest.approx((10 * (1.25 - half), 10 * (1.25 + half)))
    assert found.intervals["rmse"][0] < found.metrics["rmse"] < found.intervals["rmse"][1]


def test_alike_targets_leave_r2_a_number() -> None:
    target, regression = numbers_target(), {"data": {"task": "regression"}}
    for value, expected in ((1.0, 1.0), (2.0, 0.0)):
        split = Split(torch.full((3, 1), value), torch.ones(3))
        assert judged(nn.Identity(), split, target, **regression).metrics["r2"] == expected


def test_the_normal_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, 400, generator=generator, dtype=torch.float64)
    covered = [low <= 0.5 <= high for low, high in map(normal_interval, draws)]
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.015)
    assert normal_interval(torch.tensor([3.0])) == (3.0, 3.0)
