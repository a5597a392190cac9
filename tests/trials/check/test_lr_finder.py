"""F6: the steepest point of known curves, divergence of a bowl, and a fitting that is left as it was."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_splits import random_split, recipe_of, splits_of
from torch import Tensor, nn

from trials.check.lr_finder import LrCurve, RunningMean, draw, figure_of, find_lr, ramp, range_test
from trials.errors import TrialError
from trials.fit.fitting import Fitting
from trials.fit.step import Variation, steps_per_epoch, train_epoch
from trials.recipe import LrFinder
from trials.train import run_trial

CPU = torch.device("cpu")


def test_the_ramp_rises_by_the_same_factor_from_start_to_end() -> None:
    lrs = ramp(LrFinder(start=1e-4, end=1.0, steps=13))
    assert (len(lrs), lrs[0], lrs[-1]) == (13, 1e-4, 1.0)
    assert [after / before for before, after in itertools.pairwise(lrs)] == pytest.approx([10 ** (1 / 3)] * 12)


def test_a_ramp_that_does_not_rise_is_named() -> None:
    with pytest.raises(TrialError, match=r"train\.lr_finder\.end: found 0\.1, expected more than .*start, 0\.1$"):
        ramp(LrFinder(start=0.1, end=0.1))


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
def test_the_running_mean_weighs_each_value_less_than_the_next(smoothing: float) -> None:
    values = [3.0, -1.0, 4.0, 1.5]
    mean = RunningMean(smoothing)
    found = [mean.add(value) for value in values]
    weights = np.array([smoothing**age if age else 1.0 for age in range(4)])
    assert found == pytest.approx([np.average(values[:n], weights=weights[:n][::-1]) for n in range(1, 5)])


def falling_at(lr: float, width: float = 0.5) -> Callable[[float], float]:
    """A loss that goes from 2 to 1, fastest at ``lr``, and far up at a hundred times that."""
    return lambda at: 1.0 + 1.0 / (1.0 + (at / lr) ** (1 / width)) + (at / (100 * lr)) ** 2


def test_the_suggestion_is_the_steepest_point_of_a_known_curve() -> None:
    """The logistic function of log lr falls fastest in its middle."""
    curve = range_test(LrFinder(start=1e-5, end=10.0, steps=61, smoothing=0.0), falling_at(1e-2))
    assert curve.suggestion == pytest.approx(1e-2)  # step 30 of 60
    assert curve.losses == curve.smoothed
    assert curve.mean_lrs == pytest.approx(curve.lrs)


@pytest.mark.parametrize("smoothing", [0.5, 0.8, 0.9])
def test_smoothing_does_not_push_the_suggestion_to_higher_rates(smoothing: float) -> None:
    """A running mean of 0.9 falls nine steps after its values: four times the learning rate, if not accounted for."""
    section = LrFinder(start=1e-6, end=10.0, steps=100, smoothing=smoothing)
    curve = range_test(section, falling_at(1e-2, width=2.0))
    assert curve.suggestion is not None
    assert 1e-2 / 2 < curve.suggestion < 1e-2 * 2


def test_a_straight_fall_is_as_steep_after_smoothing() -> None:
    """Both means lag alike, so that the running mean lies on the line itself."""
    curve = range_test(LrFinder(start=1e-4, end=1.0, steps=50), lambda lr: 5.0 - math.log(lr))
    assert curve.smoothed == pytest.approx([5.0 - math.log(lr) for lr in curve.mean_lrs])


@pytest.mark.parametrize(
    ("losses", "steepest"),
    [
        ([9.0, *[2.0] * 11, 1.9, 1.5, 1.4, *[1.4] * 5], 12),  # the first of 20 steps do not count
        ([*[2.0] * 8, 1.6, 1.0, 1.0, 3.0, 3.0, 1.2, *[1.2] * 6], 8),  # nor does what comes after the smallest loss
    ],
)
def test_only_the_way_down_is_judged(losses: list[float], steepest: int) -> None:
    steps = iter(losses)
    curve = range_test(LrFinder(steps=20, smoothing=0.0), lambda lr: next(steps))
    assert curve.losses == tuple(losses)
    assert curve.suggestion == pytest.approx(curve.lrs[steepest])


def test_a_bowl_diverges_above_two_over_its_curvature_and_the_suggestion_lies_below() -> None:
    """Gradient descent on 1/2 sum of c x^2 shrinks x by 1 - lr c, so that it diverges where lr > 2 / c."""
    curvatures = np.geomspace(0.1, 10.0, 20)
    place = np.full(20, 1.0)

    def train_step(lr: float) -> float:
        nonlocal place
        loss = float(0.5 * (curvatures * place**2).sum())
        place = place * (1.0 - lr * curvatures)
        return loss

    limit = 2 / 10.0
    curve = range_test(LrFinder(start=1e-6, end=100.0, steps=200), train_step)
    assert curve.suggestion is not None
    assert 1e-3 < curve.suggestion < limit
    assert limit < curve.lrs[-1] < 100.0  # stopped by divergence
    assert curve.smoothed[-1] > 4 * min(curve.smoothed) >= curve.smoothed[-2]
    rising = [after > before for before, after in itertools.pairwise(curve.losses)]
    assert not any(rise for rise, lr in zip(rising, curve.lrs, strict=False) if lr < limit)
    assert rising[-1]


def noise(size: float) -> Callable[[float], float]:
    draws = random.Random(5)
    return lambda _: 2.0 + size * draws.gauss(0.0, 1.0)


@pytest.mark.parametrize(
    "train_step", [lambda lr: 2.0, lambda lr: 2.0 + lr, noise(0.3)], ids=["constant", "rising", "noise"]
)
def test_a_loss_that_never_falls_gives_no_suggestion_but_a_reason(train_step: Callable[[float], float]) -> None:
    curve = range_test(LrFinder(), train_step)
    assert curve.suggestion is None
    assert curve.reason.startswith("the loss never fell by more than the noise of its batches (from ")


def test_a_fall_in_noise_is_found() -> None:
    jitter, clean = noise(0.3), falling_at(1e-2)
    curve = range_test(LrFinder(), lambda lr: clean(lr) + jitter(lr))
    assert curve.suggestion is not None
    assert 1e-2 / 5 < curve.suggestion < 1e-2 * 5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_test_ends_before_a_loss_that_is_not_finite(bad: float) -> None:
    clean = falling_at(1e-3)
    curve = range_test(LrFinder(steps=100), lambda lr: clean(lr) if lr < 0.5 else bad)
    assert len(curve.lrs) == len(curve.losses) == len(curve.smoothed) == len(curve.mean_lrs)
    assert curve.lrs[-1] < 0.5
    assert curve.suggestion is not None


@pytest.mark.parametrize("good_steps", [0, 3])
def test_a_loss_that_runs_away_at_once_gives_no_suggestion_but_a_reason(good_steps: int) -> None:
    losses = itertools.chain([2.0] * good_steps, itertools.repeat(math.nan))
    curve = range_test(LrFinder(steps=100), lambda lr: next(losses))
    assert (len(curve.lrs), curve.suggestion) == (good_steps, None)
    assert curve.reason == f"the loss ran away within {good_steps + 1} step(s); lower train.lr_finder.start"


def test_the_test_ends_once_the_smoothed_loss_is_so_many_times_its_smallest() -> None:
    losses = iter([1.0, 2.0, 3.0, 5.0, 9.0, *[0.0] * 10])
    curve = range_test(LrFinder(steps=15, smoothing=0.0, stop_at=4.5), lambda lr: next(losses))
    assert curve.losses == (1.0, 2.0, 3.0, 5.0)


def test_the_picture_marks_the_suggestion_on_a_logarithmic_axis() -> None:
    lrs, losses = (1e-4, 1e-3, 1e-2, 1e-1), (2.0, 2.5, 1.0, 90.0)
    means, smoothed = (1e-4, 5e-4, 5e-3, 5e-2), (2.0, 2.25, 1.5, 3.0)
    figure = figure_of(LrCurve(lrs, losses, means, smoothed, suggestion=5e-3))
    (axes,) = figure.axes
    drawn = [(tuple(np.ravel(line.get_xdata())), tuple(np.ravel(line.get_ydata()))) for line in axes.get_lines()]
    assert drawn == [(lrs, losses), (means, smoothed), ((5e-3,), (1.5,))]
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == pytest.approx((1.5 - 0.15, 3.0 + 0.15))  # not up to the batch of 90
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-1] == "steepest fall: 0.005"


def test_a_picture_without_suggestion_says_why() -> None:
    figure = figure_of(LrCurve((0.1, 1.0), (2.0, 2.0), (0.1, 0.5), (2.0, 2.0), None, "the loss never fell"))
    assert figure.axes[0].get_title() == "no suggestion: the loss never fell"
    assert len(figure.axes[0].get_lines()) == 2


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_curve_of_any_length_becomes_a_png(steps: int, tmp_path: Path) -> None:
    values = tuple(0.1 * (step + 1) for step in range(steps))
    draw(LrCurve(values, values, values, values, suggestion=values[1] if steps > 1 else None), tmp_path / "a" / "b.png")
    with Image.open(tmp_path / "a" / "b.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (700, 400))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1  # state of a user's own, which no state_dict knows
        outputs: Tensor = self.layers(inputs)
        return outputs


def fitting_of(
    model: nn.Module, count: int = 96, data: dict[str, Any] | None = None, **train: Any
) -> tuple[Fitting, Variation]:
    content = {"epochs": 4, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.1}, "lr_finder": {}} | train
    recipe, splits = recipe_of(content, data, seed=3), splits_of(random_split(count, 5, classes=3))
    fitting = Fitting(model, recipe, splits.target, steps_per_epoch(count, recipe.train), CPU)
    return fitting, Variation(splits, recipe, CPU)


FULL: dict[str, Any] = {
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": {"name": "cosine", "warmup": 0.2},
    "ema": {"decay": 0.9},
    "swa": {"start": 0.0},
    "clip_norm": 1.0,
}


def everything(fitting: Fitting) -> dict[str, Any]:
    models = {"raw": fitting.model, **fitting.averages()}
    return copy.deepcopy(
        {
            "weights": {kind: dict(model.state_dict()) for kind, model in models.items()},
            "state": fitting.state(),
            "gradients": [parameter.grad for parameter in fitting.parameters],
            "modes": [module.training for module in fitting.model.modules()],
            "calls": fitting.model.calls,
            "lr": fitting.lr,
        }
    )


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("epochs_before", [0, 2])
def test_the_fitting_is_left_as_it_was_bit_for_bit(precision: str, epochs_before: int) -> None:
    """With batch norm, momentum, a loss scale, both averages and counters, untrained and in the midst of a training."""
    fitting, vary = fitting_of(Net(), precision=precision, **FULL)
    for epoch in range(1, epochs_before + 1):
        train_epoch(fitting, vary.splits, vary, epoch, fitting.recipe)
    before = everything(fitting)
    curve = find_lr(fitting, vary)
    assert len(curve.lrs) > 20
    assert_same(everything(fitting), before)


def test_the_training_after_a_range_test_is_the_one_without() -> None:
    weights = []
    for test_first in (True, False):
        fitting, vary = fitting_of(Net(), **FULL)
        if test_first:
            find_lr(fitting, vary)
        torch.manual_seed(7)  # the caller seeds each epoch
        train_epoch(fitting, vary.splits, vary, 1, fitting.recipe)
        weights.append({kind: dict(model.state_dict()) for kind, model in fitting.averages().items()})
    assert_same(weights[0], weights[1])


def test_the_same_recipe_gives_the_same_curve_whatever_was_drawn_before() -> None:
    curves = []
    for drawn in (1, 2):
        fitting, vary = fitting_of(Net(), data={"mix": "mixup"}, **FULL)
        torch.manual_seed(drawn)
        for _ in range(drawn):
            vary(torch.arange(8))
        curves.append(find_lr(fitting, vary))
    assert curves[0] == curves[1]


def test_each_pass_over_the_data_is_in_an_order_of_its_own() -> None:
    """At rates that move nothing, the losses of two passes in the same order would be the same."""
    torch.manual_seed(0)
    curve = find_lr(*fitting_of(nn.Linear(5, 3), lr_finder={"start": 1e-15, "end": 1e-14, "steps": 12}))
    first, second = curve.losses[:6], curve.losses[6:]  # 96 examples in batches of 16
    assert sum(first) == pytest.approx(sum(second))
    assert first != pytest.approx(second)


def test_each_step_is_taken_at_its_rate_whatever_schedule_and_averages_the_recipe_has() -> None:
    plain = find_lr(*fitting_of(Net(), optimizer=FULL["optimizer"], clip_norm=1.0))
    assert find_lr(*fitting_of(Net(), **FULL)) == plain


def test_a_step_takes_accumulated_batches_as_one_and_goes_round_the_data() -> None:
    """48 examples make three steps of 16, in batches of 16 or of 8; 40 steps are more than 13 passes."""

    def curve_of(**train: Any) -> LrCurve:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        model.register_forward_pre_hook(lambda _, args: (args[0].double(),))
        return find_lr(*fitting_of(model, count=48, lr_finder={"steps": 40, "end": 1.0}, **train))

    whole, parts = curve_of(batch_size=16), curve_of(batch_size=8, accumulate=2)
    assert len(whole.losses) == 40
    assert len(set(whole.losses)) == 40
    assert parts.losses == pytest.approx(whole.losses, rel=1e-6)


def test_the_suggestion_for_a_real_fitting_lies_where_training_works() -> None:
    """Labels that a line separates: the loss falls between rates at which nothing moves and at which it runs away."""
    torch.manual_seed(0)
    fitting, vary = fitting_of(nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3)), count=512, batch_size=64)
    vary.splits.train.targets.copy_(vary.splits.train.inputs[:, :3].argmax(dim=1))
    curve = find_lr(fitting, vary)
    assert curve.suggestion is not None
    assert 1e-3 < curve.suggestion < 1.0
    fitting.top_lr = curve.suggestion
    losses = [train_epoch(fitting, vary.splits, vary, epoch, fitting.recipe).loss for epoch in (1, 2, 3, 4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
def test_two_processes_find_the_rate_that_one_finds_and_train_at_it(tmp_path: Path) -> None:
    """Two batches of 32, each shared by two processes, are one of 64."""
    finder = {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}, "lr_finder": {"steps": 40, "start": 1e-4}}
    results, pictures = [], []
    for name, sizes in [("one", {"batch_size": 64}), ("two", {"batch_size": 32, "accumulate": 2, "data_parallel": 2})]:
        recipe = recipe_of(finder | sizes, model={"build": "mlp", "width": 16})
        results.append(run_trial(recipe, tmp_path / name, device="cpu"))
        with Image.open(tmp_path / name / "pictures" / "lr_finder.png") as picture:
            pictures.append(np.asarray(picture.convert("L")).astype(int))
    one, two = results
    assert two.lr == pytest.approx(one.lr, rel=1e-6)
    assert one.lr != 0.1
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.01  # of 255: the same curve
    assert two.weights[0].metrics == pytest.approx(one.weights[0].metrics, rel=1e-5)
