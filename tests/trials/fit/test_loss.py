"""R5: label smoothing against its closed form. R2, R3: the blended loss is the blend of losses."""

from __future__ import annotations

import math

import pytest
import torch

from trials.fit.loss import correct_count, cross_entropy

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0], [-3.0, 1.0, 2.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])
OTHERS = torch.tensor([1, 2, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothing_spreads_its_share_evenly_over_all_classes(smoothing: float) -> None:
    expected = []
    for logits, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(value) for value in logits))
        losses = [normaliser - value for value in logits]
        expected.append((1 - smoothing) * losses[target] + smoothing * sum(losses) / len(losses))
    found = cross_entropy(LOGITS, TARGETS, label_smoothing=smoothing).item()
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_uniform_guesses_cost_the_log_of_the_number_of_classes_whatever_the_smoothing() -> None:
    for smoothing in (0.0, 0.3):
        assert cross_entropy(torch.zeros(4, 10), torch.arange(4), smoothing).item() == pytest.approx(math.log(10))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_a_blend_of_labels_is_a_blend_of_losses(lam: float) -> None:
    expected = lam * cross_entropy(LOGITS, TARGETS, 0.1) + (1 - lam) * cross_entropy(LOGITS, OTHERS, 0.1)
    assert cross_entropy(LOGITS, TARGETS, 0.1, blend=(OTHERS, lam)).item() == pytest.approx(expected.item())


def test_correct_counts_hits_and_weighs_those_of_a_blend() -> None:
    assert correct_count(LOGITS, TARGETS).item() == 1  # guesses 0, 0 (the first of equals), 2
    blend = (torch.tensor([1, 0, 2]), 0.3)
    assert correct_count(LOGITS, TARGETS, blend).item() == pytest.approx(0.3 * 1 + 0.7 * 2)
