"""A1: the moving average against its closed form; buffers; exact continuation."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from trials.average.ema import WeightEma, ema_decay
from trials.recipe import Ema


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def test_a_constant_decay_gives_the_closed_form() -> None:
    """From 0 towards a constant w: w_ema(n) = w * (1 - decay ** n)."""
    model = Scalar(0.0)
    ema = WeightEma(model, Ema(decay=0.9, warmup=False))
    model.weight.data.fill_(5.0)
    for step in range(1, 51):
        ema.update(step)
        assert ema.model.weight.item() == pytest.approx(5.0 * (1 - 0.9**step), rel=1e-12)


def test_warm_up_follows_its_formula_over_a_moving_weight() -> None:
    model = Scalar(1.0)
    ema = WeightEma(model, Ema(decay=0.5, warmup=True))
    expected = 1.0
    for step in range(1, 30):
        model.weight.data.fill_(math.sin(step))
        kept = min(0.5, (1 + step) / (10 + step))
        expected = (1 - kept) * math.sin(step) + kept * expected
        ema.update(step)
        assert ema.model.weight.item() == pytest.approx(expected, rel=1e-12)


def test_the_decay_rises_to_its_limit() -> None:
    assert [ema_decay(step, 0.4, warmup=True) for step in (1, 2, 4, 5, 100)] == pytest.approx(
        [2 / 11, 3 / 12, 5 / 14, 0.4, 0.4]
    )
    assert ema_decay(1, 0.999, warmup=False) == 0.999


def test_float_buffers_are_averaged_and_integer_buffers_copied() -> None:
    model = nn.BatchNorm1d(2).double()
    ema = WeightEma(model, Ema(decay=0.75, warmup=False))
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    ema.update(1)
    assert model.num_batches_tracked == 2
    assert ema.model.num_batches_tracked == 2
    torch.testing.assert_close(ema.model.running_mean, 0.25 * model.running_mean)  # from 0
    torch.testing.assert_close(ema.model.running_var, 0.75 + 0.25 * model.running_var)  # from 1


def test_the_average_is_a_model_apart_in_eval_mode_without_gradients() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    ema = WeightEma(model, Ema())
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    before = copy.deepcopy(ema.model.state_dict())
    model[0].weight.data.add_(1.0)
    assert torch.equal(ema.model.state_dict()["0.weight"], before["0.weight"])


def test_tied_weights_stay_tied_and_are_averaged_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model[0].weight.data.zero_()
    ema = WeightEma(model, Ema(decay=0.75, warmup=False))
    model[0].weight.data.fill_(1.0)
    ema.update(1)
    assert ema.model[1].weight is ema.model[0].weight
    assert torch.equal(ema.model[0].weight, torch.full((2, 2), 0.25))


def test_loading_the_copy_continues_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = [torch.randn(3, 4, generator=generator) for _ in range(20)]
    section = Ema(decay=0.99)

    def run(ema: WeightEma, model: nn.Linear, steps: range) -> None:
        for step in steps:
            model.weight.data.copy_(targets[step - 1])
            ema.update(step)

    whole = nn.Linear(4, 3)
    first = copy.deepcopy(whole)
    unbroken = WeightEma(whole, section)
    run(unbroken, whole, range(1, 21))
    broken = WeightEma(first, section)
    run(broken, first, range(1, 8))
    second = nn.Linear(4, 3)
    second.load_state_dict(first.state_dict())
    continued = WeightEma(second, section)
    continued.model.load_state_dict(broken.model.state_dict())
    run(continued, second, range(8, 21))
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(continued.model.state_dict()[name], value), name
