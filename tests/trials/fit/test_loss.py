"""R5: smoothing, class weights and focal loss against closed forms. R2, R3: the blended loss is the blend of losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from trials.data.target import Target
from trials.errors import TrialError
from trials.fit.loss import absolute_error, build_loss, class_scores, correct_count, mean_loss
from trials.recipe import Bce, Loss

CPU = torch.device("cpu")
LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0], [-3.0, 1.0, 2.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])
OTHERS = torch.tensor([1, 2, 0])
CLASSES = Target("classification", ("a", "b", "c"), counts=(10, 30, 60))
NUMBER = Target("regression", mean=5.0, std=2.0)


def losses(
    target: Target = CLASSES, outputs: Tensor = LOGITS, targets: Tensor = TARGETS, **section: Any
) -> list[float]:
    """The loss of each example."""
    chosen = TypeAdapter(Loss).validate_python(section) if section else None
    found: list[float] = build_loss(chosen, target, CPU)(outputs, targets).tolist()
    return found


def log_softmax(row: list[float]) -> list[float]:
    normaliser = math.log(sum(math.exp(value) for value in row))
    return [value - normaliser for value in row]


ROWS = [log_softmax(row) for row in LOGITS.tolist()]
ENTROPIES = [-row[target] for row, target in zip(ROWS, TARGETS.tolist(), strict=True)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothing_spreads_its_share_evenly_over_all_classes(smoothing: float) -> None:
    expected = [
        (1 - smoothing) * entropy + smoothing * -sum(row) / 3 for row, entropy in zip(ROWS, ENTROPIES, strict=True)
    ]
    assert losses(name="cross_entropy", label_smoothing=smoothing) == pytest.approx(expected, rel=1e-6)


def test_uniform_guesses_cost_the_log_of_the_number_of_classes_whatever_the_smoothing() -> None:
    ten = Target("classification", tuple("abcdefghij"), (1,) * 10)
    for smoothing in (0.0, 0.3):
        found = losses(ten, torch.zeros(4, 10), torch.arange(4), name="cross_entropy", label_smoothing=smoothing)
        assert found == pytest.approx([math.log(10)] * 4)


def test_classes_and_numbers_have_a_loss_where_nothing_is_said() -> None:
    assert losses() == pytest.approx(ENTROPIES)
    assert losses(NUMBER, torch.tensor([[1.0], [4.0]]), torch.tensor([3.0, 3.0])) == [4.0, 1.0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_scales_each_entropy_by_its_doubt(gamma: float) -> None:
    expected = [(1 - math.exp(-entropy)) ** gamma * entropy for entropy in ENTROPIES]
    assert losses(name="focal", gamma=gamma) == pytest.approx(expected, rel=1e-6)


def test_focal_loss_of_a_certain_guess_has_a_finite_gradient() -> None:
    outputs = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    section = TypeAdapter(Loss).validate_python({"name": "focal", "gamma": 0.5})
    build_loss(section, CLASSES, CPU)(outputs, torch.tensor([0])).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().max() < 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_bce_asks_each_class_for_itself(smoothing: float) -> None:
    expected = []
    for row, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        parts = []
        for index, value in enumerate(row):
            goal = (1 - smoothing) * (index == target) + smoothing / 3
            yes = 1 / (1 + math.exp(-value))
            parts.append(-goal * math.log(yes) - (1 - goal) * math.log(1 - yes))
        expected.append(sum(parts) / 3)
    assert losses(name="bce", label_smoothing=smoothing) == pytest.approx(expected, rel=1e-6)


def test_huber_is_squared_near_zero_and_linear_far_out() -> None:
    outputs, targets = torch.tensor([[0.5], [3.0], [-4.0]]), torch.zeros(3)
    expected = [0.5 * 0.25, 2.0 * (3.0 - 1.0), 2.0 * (4.0 - 1.0)]
    assert losses(NUMBER, outputs, targets, name="huber", delta=2.0) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "bce"])
def test_class_weights_multiply_each_example_by_that_of_its_class(name: str) -> None:
    plain = losses(name=name)
    given = losses(name=name, class_weights=[2.0, 3.0, 0.5])
    assert given == pytest.approx([2.0 * plain[0], 0.5 * plain[1], 3.0 * plain[2]])


def test_balanced_weights_are_inverse_to_the_counts_with_mean_one_over_the_examples() -> None:
    plain, balanced = losses(name="cross_entropy"), losses(name="cross_entropy", class_weights="balanced")
    weights = [new / old for new, old in zip(balanced, plain, strict=True)]  # of the classes 0, 2 and 1
    assert weights == pytest.approx([100 / (3 * 10), 100 / (3 * 60), 100 / (3 * 30)])
    assert (10 * weights[0] + 60 * weights[1] + 30 * weights[2]) / 100 == pytest.approx(1.0)


def test_a_weight_for_each_class_is_asked_for() -> None:
    with pytest.raises(TrialError, match=r"class_weights: found 2 weights, expected 3, one for each class: a, b, c"):
        losses(name="cross_entropy", class_weights=[1.0, 2.0])


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_a_blend_of_labels_is_a_blend_of_losses(lam: float) -> None:
    loss = build_loss(None, CLASSES, CPU)
    expected = lam * mean_loss(loss, LOGITS, TARGETS) + (1 - lam) * mean_loss(loss, LOGITS, OTHERS)
    assert mean_loss(loss, LOGITS, TARGETS, blend=(OTHERS, lam)).item() == pytest.approx(expected.item())


def test_scores_under_bce_have_the_scaled_sigmoids_as_their_softmax() -> None:
    sigmoids = LOGITS.sigmoid()
    torch.testing.assert_close(class_scores(LOGITS, Bce(name="bce")).softmax(1), sigmoids / sigmoids.sum(1, True))
    assert torch.equal(class_scores(LOGITS, None), LOGITS)


def test_correct_counts_hits_and_weighs_those_of_a_blend() -> None:
    assert correct_count(LOGITS, TARGETS).item() == 1  # guesses 0, 0 (the first of equals), 2
    blend = (torch.tensor([1, 0, 2]), 0.3)
    assert correct_count(LOGITS, TARGETS, blend).item() == pytest.approx(0.3 * 1 + 0.7 * 2)


def test_absolute_errors_add_up_and_blend_by_shares() -> None:
    outputs, targets = torch.tensor([[1.0], [-2.0]]), torch.tensor([0.0, 2.0])
    assert absolute_error(outputs, targets).item() == 5.0
    others = torch.tensor([1.0, -2.0])
    assert absolute_error(outputs, targets, (others, 0.25)).item() == pytest.approx(0.25 * 5.0)
