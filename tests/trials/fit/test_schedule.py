"""F5: factors against the numbers of the specification and against torch's own schedulers."""

from __future__ import annotations

import pytest
import torch

from trials.fit.schedule import SCHEDULES, cosine, lr_factor, one_cycle
from trials.recipe import Constant, Cosine, OneCycle


def test_cosine_gives_the_known_rates() -> None:
    rates = [0.01 * cosine(epoch / 100, final=0.01) for epoch in (0, 25, 50, 75, 100)]
    assert rates == pytest.approx([0.01, 0.00855, 0.00505, 0.00155, 1e-4], abs=1e-5)
    assert rates[0] == 0.01
    assert rates[2] == pytest.approx((0.01 + 1e-4) / 2)


@pytest.mark.parametrize("total_steps", [1, 7, 100])
def test_cosine_equals_torch(total_steps: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.2)
    twin = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total_steps, eta_min=0.2 * 0.05)
    schedule = Cosine(name="cosine", final=0.05)
    for step in range(total_steps):
        assert 0.2 * lr_factor(schedule, step, total_steps) == pytest.approx(twin.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        twin.step()


@pytest.mark.parametrize(("total_steps", "warmup"), [(100, 0.3), (37, 0.21), (10, 0.5), (3, 0.3)])
def test_one_cycle_equals_torch(total_steps: int, warmup: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.2)
    twin = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=total_steps, pct_start=warmup, div_factor=25, final_div_factor=1e4
    )
    schedule = OneCycle(name="one_cycle", warmup=warmup, start=1 / 25, final=1 / 25 / 1e4)
    for step in range(total_steps):
        assert 0.2 * lr_factor(schedule, step, total_steps) == pytest.approx(twin.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step + 1 < total_steps:
            twin.step()


def test_one_cycle_passes_through_its_three_corners() -> None:
    corners = [one_cycle(progress, peak=0.25, start=0.1, final=0.01) for progress in (0.0, 0.25, 1.0)]
    assert corners == pytest.approx([0.1, 1.0, 0.01])


def test_one_cycle_of_a_single_step_is_taken_at_the_top() -> None:
    assert lr_factor(OneCycle(name="one_cycle"), 0, 1) == 1.0


def test_one_cycle_whose_peak_is_the_first_step_starts_at_the_top() -> None:
    """torch divides by zero here."""
    factors = [lr_factor(OneCycle(name="one_cycle", warmup=0.25, final=0.0), step, 4) for step in range(4)]
    assert factors == pytest.approx([1.0, 0.75, 0.25, 0.0])


def test_constant_is_one_everywhere() -> None:
    assert {lr_factor(Constant(name="constant"), step, 9) for step in range(9)} == {1.0}


def test_warm_up_rises_linearly_and_wastes_no_step_at_zero() -> None:
    constant = [lr_factor(Constant(name="constant", warmup=0.4), step, 10) for step in range(6)]
    assert constant == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    after = [lr_factor(Cosine(name="cosine", warmup=0.4), step, 10) for step in range(10)]
    assert after[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert after[4:] == pytest.approx([cosine(step / 6) for step in range(6)])


@pytest.mark.parametrize("schedule", [Constant(name="constant", warmup=1.0), Cosine(name="cosine", warmup=1.0)])
def test_a_warm_up_of_the_whole_training_ends_at_the_top(schedule: Constant | Cosine) -> None:
    assert [lr_factor(schedule, step, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_steps_past_the_end_stay_at_the_last_rate(name: str) -> None:
    schedule = {"constant": Constant(name="constant"), "cosine": Cosine(name="cosine")}.get(
        name, OneCycle(name="one_cycle")
    )
    assert lr_factor(schedule, 99, 10) == lr_factor(schedule, 9, 10)
