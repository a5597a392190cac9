"""F5: factors against the numbers of the specification and against torch's own schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch.optim import lr_scheduler

from trials.fit.schedule import SCHEDULES, cosine, extension_factor, lr_factor, one_cycle, periods_before, whole_steps
from trials.recipe import Cosine, CosineRestarts, Extension, OneCycle, Schedule

LR = 0.2


def schedule_of(name: str, **settings: Any) -> Schedule:
    schedule: Schedule = TypeAdapter(Schedule).validate_python({"name": name, **settings})
    return schedule


def factors(schedule: Schedule, total_steps: int) -> list[float]:
    return [lr_factor(schedule, step, total_steps) for step in range(total_steps)]


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """The learning rates of one of torch's schedulers, stepped once an update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    twin = make(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < steps:
            twin.step()
    return rates


TWINS: list[tuple[str, dict[str, Any], int, Callable[[torch.optim.Optimizer], Any]]] = [
    ("constant", {}, 9, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ("step", {"every": 0.3, "gamma": 0.5}, 20, lambda o: lr_scheduler.StepLR(o, 6, 0.5)),
    ("step", {}, 90, lambda o: lr_scheduler.StepLR(o, 30, 0.1)),
    ("multi_step", {"at": [0.3, 0.45, 0.9]}, 20, lambda o: lr_scheduler.MultiStepLR(o, [6, 9, 18], 0.1)),
    ("multi_step", {"at": [0.5, 0.5]}, 7, lambda o: lr_scheduler.MultiStepLR(o, [4, 4], 0.1)),
    ("exponential", {"final": 0.05}, 40, lambda o: lr_scheduler.ExponentialLR(o, 0.05 ** (1 / 40))),
    (
        "cyclic",
        {"cycles": 3, "low": 0.25},
        48,
        lambda o: lr_scheduler.CyclicLR(o, 0.25 * LR, LR, step_size_up=8, cycle_momentum=False),
    ),
    (
        "cyclic",
        {"cycles": 4, "low": 0.1, "halve": True},
        40,
        lambda o: lr_scheduler.CyclicLR(o, 0.1 * LR, LR, step_size_up=5, mode="triangular2", cycle_momentum=False),
    ),
    *[
        ("cosine", {"final": 0.05}, steps, lambda o, steps=steps: lr_scheduler.CosineAnnealingLR(o, steps, 0.05 * LR))
        for steps in (1, 7, 100)
    ],
    (
        "cosine_restarts",
        {"final": 0.05},
        70,
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, T_mult=2, eta_min=0.05 * LR),
    ),
    (
        "cosine_restarts",
        {"first": 0.1, "multiply": 3},
        40,
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, T_mult=3),
    ),
    (
        "cosine_restarts",
        {"first": 0.25, "multiply": 1},
        40,
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10),
    ),
    ("polynomial", {}, 25, lambda o: lr_scheduler.PolynomialLR(o, 25)),
    ("polynomial", {"power": 2.5}, 25, lambda o: lr_scheduler.PolynomialLR(o, 25, power=2.5)),
    *[
        (
            "one_cycle",
            {"warmup": warmup, "start": 1 / 25, "final": 1 / 25 / 1e4},
            steps,
            lambda o, steps=steps, warmup=warmup: lr_scheduler.OneCycleLR(
                o, LR, steps, pct_start=warmup, div_factor=25, final_div_factor=1e4
            ),
        )
        for steps, warmup in [(100, 0.3), (37, 0.21), (10, 0.5), (3, 0.3)]
    ],
    (
        "sequence",
        {
            "parts": [
                {"share": 1.0, "schedule": {"name": "constant"}, "top": 0.1},
                {"share": 0.6, "schedule": {"name": "exponential", "final": 0.2}},
                {"share": 0.4, "schedule": {"name": "cosine"}},
            ]
        },
        50,
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.ConstantLR(o, factor=0.1, total_iters=100),
                lr_scheduler.ExponentialLR(o, 0.2 ** (1 / 15)),
                lr_scheduler.CosineAnnealingLR(o, 10),
            ],
            [25, 40],
        ),
    ),
]


@pytest.mark.parametrize(("name", "settings", "steps", "make"), TWINS, ids=[f"{t[0]}-{t[2]}" for t in TWINS])
def test_each_schedule_equals_torch(
    name: str, settings: dict[str, Any], steps: int, make: Callable[[torch.optim.Optimizer], Any]
) -> None:
    rates = [LR * factor for factor in factors(schedule_of(name, **settings), steps)]
    assert rates == pytest.approx(torch_rates(make, steps), rel=1e-9, abs=1e-15)


def test_warm_up_then_cosine_equals_torch() -> None:
    rates = [LR * factor for factor in factors(Cosine(name="cosine", warmup=0.2), 50)]
    twin = torch_rates(
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=9), lr_scheduler.CosineAnnealingLR(o, 40)],
            [10],
        ),
        50,
    )
    assert rates == pytest.approx(twin, rel=1e-9, abs=1e-15)


def test_every_schedule_of_the_recipe_has_its_function_and_its_twin() -> None:
    names = {get_args(section.model_fields["name"].annotation)[0] for section in get_args(get_args(Schedule)[0])}
    assert set(SCHEDULES) == names == {name for name, *_ in TWINS}


@pytest.mark.parametrize("steps_per_epoch", [1, 7, 391])
def test_step_gives_the_known_rates(steps_per_epoch: int) -> None:
    """0.1, down tenfold every 30 of 90 epochs."""
    step = schedule_of("step", every=1 / 3, gamma=0.1)
    rates = [0.1 * lr_factor(step, epoch * steps_per_epoch, 90 * steps_per_epoch) for epoch in (1, 29, 30, 59, 60, 89)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    last_before = lr_factor(step, 30 * steps_per_epoch - 1, 90 * steps_per_epoch)
    assert last_before == 1.0


def test_cosine_gives_the_known_rates() -> None:
    rates = [0.01 * cosine(epoch / 100, final=0.01) for epoch in (0, 25, 50, 75, 100)]
    assert rates == pytest.approx([0.01, 0.00855, 0.00505, 0.00155, 1e-4], abs=1e-5)
    assert rates[0] == 0.01
    assert rates[2] == pytest.approx((0.01 + 1e-4) / 2)
    schedule = Cosine(name="cosine", final=0.01)
    assert [0.01 * lr_factor(schedule, epoch, 100) for epoch in (0, 25, 50, 75)] == pytest.approx(rates[:4])


def test_drops_come_at_the_nearest_whole_step_and_none_is_left_over_at_the_end() -> None:
    """A third of 91 steps is 30.33: rounded once, a third drop would come at step 90."""
    assert [periods_before(step, 91 / 3) for step in (29, 30, 60, 61, 90)] == [0, 1, 1, 2, 2]
    for total_steps in range(3, 400):
        drops = [periods_before(step, 1 / 3 * total_steps) for step in range(total_steps)]
        boundaries = [whole_steps(total_steps / 3), whole_steps(2 * total_steps / 3)]
        assert drops == [sum(boundary <= step for boundary in boundaries) for step in range(total_steps)]


@pytest.mark.parametrize("total_steps", [7, 70, 100, 391, 1000])
def test_a_seventh_doubled_makes_three_whole_cosines_whatever_the_number_of_steps(total_steps: int) -> None:
    values = factors(CosineRestarts(name="cosine_restarts"), total_steps)
    tops = [step for step, value in enumerate(values) if value == 1.0]
    assert tops == [0, whole_steps(total_steps / 7), whole_steps(3 * total_steps / 7)]
    assert values[-1] < 0.4


def test_triangles_touch_their_feet_though_the_steps_do_not_divide() -> None:
    values = factors(schedule_of("cyclic", cycles=3, low=0.2), 100)
    assert [step for step, value in enumerate(values) if value == pytest.approx(0.2)] == [0, 33, 67]
    assert max(values) == 1.0  # the middle triangle has an even number of steps


def test_a_triangle_has_two_steps_at_least() -> None:
    assert factors(schedule_of("cyclic", cycles=5, low=0.2), 6) == pytest.approx([0.2, 1.0] * 3)


def test_a_sequence_gives_each_part_its_own_steps_in_proportion_to_the_shares() -> None:
    warmed = {"name": "cosine", "warmup": 0.5}
    parts = [{"share": 0.2, "schedule": warmed}, {"share": 0.6, "schedule": warmed, "top": 0.5}]
    values = factors(schedule_of("sequence", parts=parts), 16)
    part = Cosine(name="cosine", warmup=0.5)
    assert values == [*factors(part, 4), *(0.5 * factor for factor in factors(part, 12))]


def test_a_part_of_a_sequence_too_short_for_a_step_is_passed_over() -> None:
    parts = [
        {"share": share, "schedule": {"name": "constant"}, "top": top} for share, top in [(0.01, 0.5), (1.0, 0.25)]
    ]
    assert factors(schedule_of("sequence", parts=parts), 4) == [0.25] * 4


@pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 5, 13, 64])
def test_every_factor_is_a_share_of_the_top_in_trainings_of_any_length(total_steps: int) -> None:
    odd: list[tuple[str, dict[str, Any]]] = [
        ("step", {"every": 1e-6}),
        ("multi_step", {"at": [1e-6, 0.999999]}),
        ("cyclic", {"cycles": 100, "low": 0.0}),
        ("cosine_restarts", {"first": 1e-6, "multiply": 2}),
        ("cosine_restarts", {"first": 1e-6, "multiply": 1}),
        ("cosine_restarts", {"first": 1.0, "multiply": 1, "final": 0.3}),
        ("polynomial", {"power": 50.0, "final": 0.1}),
        ("one_cycle", {"warmup": 0.999, "start": 1.0, "final": 1.0}),
        *(("constant", {"warmup": warmup}) for warmup in (0.01, 0.5, 1.0)),
        *(("step", {"warmup": warmup}) for warmup in (0.01, 0.5, 1.0)),
    ]
    for name, settings in [*((name, settings) for name, settings, *_ in TWINS), *odd]:
        values = factors(schedule_of(name, **settings), total_steps)
        assert all(0.0 <= value <= 1.0 for value in values), (name, settings)
        assert max(values) > 0.0 or name == "cyclic", (name, settings)


def test_no_drop_comes_before_the_first_step() -> None:
    for schedule in (schedule_of("step", every=0.1), schedule_of("multi_step", at=[0.1])):
        assert lr_factor(schedule, 0, 1) == 1.0


def test_one_cycle_passes_through_its_three_corners() -> None:
    corners = [one_cycle(progress, peak=0.25, start=0.1, final=0.01) for progress in (0.0, 0.25, 1.0)]
    assert corners == pytest.approx([0.1, 1.0, 0.01])


def test_one_cycle_of_a_single_step_is_taken_at_the_top() -> None:
    assert lr_factor(OneCycle(name="one_cycle"), 0, 1) == 1.0


def test_one_cycle_whose_peak_is_the_first_step_starts_at_the_top() -> None:
    """torch divides by zero here."""
    values = factors(OneCycle(name="one_cycle", warmup=0.25, final=0.0), 4)
    assert values == pytest.approx([1.0, 0.75, 0.25, 0.0])


def test_warm_up_rises_linearly_and_wastes_no_step_at_zero() -> None:
    constant = factors(schedule_of("constant", warmup=0.4), 10)
    assert constant == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    after = factors(Cosine(name="cosine", warmup=0.4), 10)
    assert after[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert after[4:] == pytest.approx([cosine(step / 6) for step in range(6)])


@pytest.mark.parametrize(
    "name", ["constant", "step", "multi_step", "exponential", "cyclic", "cosine", "cosine_restarts", "polynomial"]
)
def test_after_the_warm_up_a_schedule_takes_the_steps_that_are_left(name: str) -> None:
    warmed, plain = factors(schedule_of(name, warmup=0.3), 50), factors(schedule_of(name), 35)
    assert warmed[:15] == pytest.approx([(step + 1) / 15 for step in range(15)])
    assert warmed[15:] == plain


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_a_warm_up_of_the_whole_training_ends_at_the_top(name: str) -> None:
    assert factors(schedule_of(name, warmup=1.0), 4) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name, settings, *_ in TWINS])
def test_steps_past_the_end_stay_at_the_last_rate(name: str, settings: dict[str, Any]) -> None:
    schedule = schedule_of(name, **settings)
    assert lr_factor(schedule, 99, 10) == lr_factor(schedule, 9, 10)


def test_an_extension_goes_down_by_a_cosine_or_stays() -> None:
    falling = [extension_factor(Extension(epochs=1, lr=0.2, after_epochs=1), step, 4) for step in range(6)]
    assert falling == pytest.approx([0.2 * cosine(step / 4) for step in (0, 1, 2, 3, 3, 3)])
    constant = Extension(epochs=1, lr=0.2, schedule="constant", after_epochs=1)
    assert [extension_factor(constant, step, 4) for step in range(4)] == [0.2] * 4
