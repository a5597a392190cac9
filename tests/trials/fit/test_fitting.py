"""F9: an overflowing gradient skips the update, the schedule and the average; state continues exactly."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from small_splits import numbers_target, recipe_of
from torch import Tensor, nn

from trials.fit.fitting import Fitting

CPU = torch.device("cpu")


def fitting_of(model: nn.Module, total_steps: int = 10, **section: Any) -> Fitting:
    return Fitting(model, recipe_of({"epochs": 1} | section), numbers_target(), total_steps, CPU)


def backward(fitting: Fitting, factor: float = 1.0) -> None:
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(fitting.steps))
    loss = fitting.model(inputs).square().mean() * factor
    fitting.scaler.scale(loss).backward()


def weights(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


SECTION = {
    "optimizer": {"name": "adamw", "lr": 0.1},
    "schedule": {"name": "cosine"},
    "ema": {"decay": 0.9},
    "precision": "fp16",
}


def test_an_infinite_gradient_skips_update_schedule_and_average_and_halves_the_scale() -> None:
    torch.manual_seed(0)
    fitting = fitting_of(nn.Linear(3, 2), **SECTION)
    backward(fitting)
    assert fitting.update()[0]
    assert fitting.ema is not None
    before = weights(fitting.model), weights(fitting.ema.model), fitting.lr, fitting.scaler.get_scale()
    moments = copy.deepcopy(fitting.optimizer.state_dict()["state"])
    backward(fitting)
    fitting.parameters[0].grad.view(-1)[1] = math.inf  # type: ignore[union-attr]
    applied, norm = fitting.update()
    assert not applied
    assert not math.isfinite(norm.item())
    assert (fitting.steps, fitting.skipped_steps) == (1, 1)
    after = weights(fitting.model), weights(fitting.ema.model)
    for old, new in zip([*before[0], *before[1]], [*after[0], *after[1]], strict=True):
        assert torch.equal(old, new)
    assert fitting.lr == before[2]
    assert fitting.scaler.get_scale() == before[3] / 2
    for index, state in fitting.optimizer.state_dict()["state"].items():
        assert all(torch.equal(state[key], moments[index][key]) for key in state)
    assert all(parameter.grad is None for parameter in fitting.parameters)  # the bad gradient is not carried on
    backward(fitting)
    assert fitting.update()[0]
    assert (fitting.steps, fitting.skipped_steps) == (2, 1)
    assert fitting.lr < before[2]


def test_the_norm_is_of_the_unscaled_gradient_and_clipping_works_on_it() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    section = {"optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.0}, "clip_norm": 0.01}
    scaled, plain = fitting_of(model, precision="fp16", **section), fitting_of(twin, precision="fp32", **section)
    start = weights(twin)
    for fitting in (scaled, plain):
        backward(fitting)
    norms = scaled.update()[1], plain.update()[1]
    assert norms[1].item() > 0.1
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-5, atol=0)
    for first, second in zip(weights(model), weights(twin), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)
    moved = torch.cat([(old - new).view(-1) for old, new in zip(start, weights(twin), strict=True)])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-4)  # lr 1: the step is the clipped gradient


def test_the_learning_rate_follows_the_schedule_step_by_step() -> None:
    fitting = fitting_of(
        nn.Linear(3, 2), total_steps=4, optimizer={"name": "sgd", "lr": 0.5}, schedule={"name": "cosine"}
    )
    rates = []
    for _ in range(4):
        backward(fitting)
        fitting.update()
        rates.append(fitting.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)])


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_saved_state_continues_bit_for_bit(precision: str) -> None:
    """With a skipped update before and after the break, and a scale that is about to grow."""

    def run(fitting: Fitting, steps: range) -> None:
        for step in steps:
            backward(fitting, factor=math.inf if precision == "fp16" and step in (2, 6) else 1.0)
            fitting.update()

    section = SECTION | {"precision": precision}
    torch.manual_seed(0)
    whole = fitting_of(nn.Linear(3, 2), **section)
    first = fitting_of(copy.deepcopy(whole.model), **section)
    run(whole, range(10))
    run(first, range(5))
    state = copy.deepcopy(first.state())
    second = fitting_of(nn.Linear(3, 2), **section)
    second.model.load_state_dict(first.model.state_dict())
    assert first.ema is not None
    assert second.ema is not None
    assert whole.ema is not None
    second.ema.model.load_state_dict(first.ema.model.state_dict())
    second.load_state(state)
    run(second, range(5, 10))
    pairs = zip(
        [*weights(second.model), *weights(second.ema.model)],
        [*weights(whole.model), *weights(whole.ema.model)],
        strict=True,
    )
    assert all(torch.equal(one, other) for one, other in pairs)
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    assert (second.steps, second.skipped_steps) == (whole.steps, whole.skipped_steps)
    assert second.skipped_steps == (2 if precision == "fp16" else 0)


def test_swa_takes_a_snapshot_after_each_due_epoch_at_its_constant_rate() -> None:
    """Weights written by hand after each epoch; from the share `start` on, the rate is SWA's."""
    fitting = fitting_of(
        nn.Linear(3, 2),
        total_steps=2,
        epochs=6,
        optimizer={"name": "sgd", "lr": 0.5},
        schedule={"name": "cosine"},
        swa={"start": 0.5, "every_epochs": 2, "lr": 0.1},
    )
    assert fitting.swa is not None
    rates = []
    for epoch in range(1, 7):
        fitting.begin_epoch(epoch)
        for _ in range(2):
            backward(fitting)
            fitting.update()
            rates.append(fitting.optimizer.param_groups[0]["lr"])
        for tensor in fitting.model.state_dict().values():
            tensor.fill_(float(epoch))
        fitting.end_epoch(epoch)
    cosine = [0.5 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(6)]
    assert rates == pytest.approx([*cosine, *[0.05] * 6])
    for tensor in fitting.swa.model.state_dict().values():
        torch.testing.assert_close(tensor, torch.full_like(tensor, (4 + 6) / 2))
