"""F7: accumulation equals the larger batch. F8: the norm that is reported. Divergence, order, blended labels."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from small_splits import features, numbers_target, random_split, recipe_of, splits_of
from torch import Tensor, nn
from torch.nn import functional

from trials.data import Split, Target
from trials.errors import Diverged, TrialError
from trials.fit.fitting import Fitting
from trials.fit.micro_batch import batch_sizes
from trials.fit.step import Variation, steps_per_epoch, train_epoch

CPU = torch.device("cpu")
FEATURES = 5
PREPROCESS = features(FEATURES, mean=0.5, std=2.0)


def split_of(count: int) -> Split:
    return random_split(count, FEATURES, classes=3)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 3)).double()


class InDoubles(nn.Module):
    """Computes in float64, so that sums in another order agree to many digits."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs.double())
        return outputs


def fit(
    net: nn.Module,
    split: Split,
    data: dict[str, Any] | None = None,
    epochs: int = 1,
    first_epoch: int = 1,
    target: Target | None = None,
    **section: Any,
) -> tuple[Fitting, list[Any]]:
    train = {"optimizer": {"name": "sgd", "lr": 0.1}, "epochs": epochs} | section
    recipe, splits = recipe_of(train, data, seed=3), splits_of(split, PREPROCESS, target or CLASSES)
    fitting = Fitting(net, recipe, splits.target, steps_per_epoch(len(split), recipe.train), CPU)
    vary = Variation(splits, recipe, CPU)
    trained = range(first_epoch, first_epoch + epochs)
    return fitting, [train_epoch(fitting, splits, vary, epoch, recipe) for epoch in trained]


CLASSES = Target("classification", ("a", "b", "c"), (1, 1, 1))


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_last_batch_of_one_joins_the_one_before(count: int, batch_size: int, expected: list[int]) -> None:
    assert batch_sizes(count, batch_size) == expected


@pytest.mark.parametrize("count", [32, 44, 41, 37, 33, 5])
def test_accumulation_gives_the_weights_and_average_of_the_larger_batch(count: int) -> None:
    """Among these: whole groups, a short last group, an uneven last batch in a group of several and alone."""
    split = split_of(count)
    shared: dict[str, Any] = {
        "epochs": 3,
        "schedule": {"name": "one_cycle"},
        "ema": {"decay": 0.9},
        "clip_norm": 0.5,
    }
    small, small_reports = fit(InDoubles(), split, batch_size=4, accumulate=4, **shared)
    large, large_reports = fit(InDoubles(), split, batch_size=16, accumulate=1, **shared)
    assert small.steps == large.steps == 3 * math.ceil(count / 16) - (3 if count == 33 else 0)
    assert small.ema is not None
    assert large.ema is not None
    for one, other in ((small.model, large.model), (small.ema.model, large.ema.model)):
        for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7, msg=name)
    for mine, theirs in zip(small_reports, large_reports, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-6)
        assert mine.score == pytest.approx(theirs.score)
        assert mine.lr == theirs.lr
        assert mine.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-6)


def test_groups_of_one_batch_are_plain_training() -> None:
    split = split_of(10)
    fitting, _ = fit(model().float(), split, batch_size=4)
    twin = model().float()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    for rows in seen_order(split, 4):
        loss = functional.cross_entropy(twin(PREPROCESS.normalise(split.inputs[rows])), split.targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for mine, theirs in zip(fitting.model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


class Watching(nn.Module):
    """Notes the rows that it is shown, by their first feature."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model().float()
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.detach().clone())
        outputs: Tensor = self.inner(inputs)
        return outputs


def seen_order(split: Split, batch_size: int, epoch: int = 1) -> list[Tensor]:
    watching = Watching()
    fit(watching, split, first_epoch=epoch, batch_size=batch_size)
    known = PREPROCESS.normalise(split.inputs)
    return [torch.tensor([int((known == row).all(1).nonzero()) for row in batch]) for batch in watching.seen]


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own() -> None:
    split = split_of(23)
    first, again, second = seen_order(split, 4), seen_order(split, 4), seen_order(split, 4, epoch=2)
    orders = [torch.cat(batches).tolist() for batches in (first, again, second)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != list(range(23))


SMOOTH = {"name": "cross_entropy", "label_smoothing": 0.2}


def test_reported_numbers_are_means_over_examples_and_steps() -> None:
    """With a learning rate of almost nothing the model stands still, so the means have a closed form."""
    split = split_of(10)
    net = model().float()
    before = copy.deepcopy(net)
    _, (report,) = fit(net, split, batch_size=4, optimizer={"name": "sgd", "lr": 1e-12, "momentum": 0.0}, loss=SMOOTH)
    logits = before(PREPROCESS.normalise(split.inputs))
    expected = functional.cross_entropy(logits, split.targets, label_smoothing=0.2)
    assert report.loss == pytest.approx(expected.item(), rel=1e-5)
    assert report.score_name == "accuracy"
    assert report.score == pytest.approx((logits.argmax(1) == split.targets).sum().item() / 10)
    norms = []
    for rows in seen_order(split, 4):
        before.zero_grad()
        part = functional.cross_entropy(
            before(PREPROCESS.normalise(split.inputs[rows])), split.targets[rows], label_smoothing=0.2
        )
        part.backward()
        norms.append(torch.cat([p.grad.view(-1) for p in before.parameters() if p.grad is not None]).norm().item())
    assert report.gradient_norm == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    assert report.metrics()["train.gradient_norm"] == report.gradient_norm


def test_mixing_trains_on_blended_inputs_and_counts_blended_labels() -> None:
    split = split_of(12)
    net = Watching()
    before = copy.deepcopy(net.inner)
    data = {"mix": "mixup", "mix_alpha": 1.0}
    _, (report,) = fit(net, split, data, batch_size=12, optimizer={"name": "sgd", "lr": 1e-12, "momentum": 0.0})
    (mixed,) = net.seen
    known = PREPROCESS.normalise(split.inputs)
    # Each shown row is lam * a + (1 - lam) * b for some pair of known rows and one lam of the whole batch.
    (order,) = seen_order(split, 12)
    base = known[order]
    losses = functional.cross_entropy(before(mixed), split.targets[order], reduction="none")
    lam, partner = solve_blend(base, mixed)
    others = functional.cross_entropy(before(mixed), split.targets[order][partner], reduction="none")
    assert report.loss == pytest.approx((lam * losses + (1 - lam) * others).mean().item(), rel=1e-4)
    guesses = before(mixed).argmax(1)
    hits = (
        lam * (guesses == split.targets[order]).float() + (1 - lam) * (guesses == split.targets[order][partner]).float()
    )
    assert report.score == pytest.approx(hits.mean().item(), rel=1e-4)


def solve_blend(base: Tensor, mixed: Tensor) -> tuple[float, Tensor]:
    """The lam and the partners with which ``base`` gives ``mixed``, by trying all pairs."""
    row = next(i for i in range(len(base)) if not torch.allclose(mixed[i], base[i], atol=1e-4))
    for candidate in range(len(base)):
        ratio = (mixed[row] - base[candidate]) / (base[row] - base[candidate])
        if candidate != row and ratio.std() < 1e-3:
            lam = ratio.mean().item()
            distance = torch.cdist((mixed - lam * base) / (1 - lam), base)
            return lam, distance.argmin(1)
    raise AssertionError("no pair explains the first blended row")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_divergence_is_raised_in_the_step_in_which_it_happens(accumulate: int) -> None:
    split = split_of(40)
    split.inputs[seen_order(split, 4)[6][0]] = math.inf  # in the seventh batch
    with pytest.raises(Diverged, match=rf"loss became nan in epoch 1 step {7 if accumulate == 1 else 3} at learning"):
        fit(model().float(), split, batch_size=4, accumulate=accumulate)


def test_a_fp16_epoch_reports_the_norm_of_applied_steps_only() -> None:
    class Overflowing(nn.Module):
        """Finite loss, but a gradient beyond fp16 in its second pass."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(FEATURES, 3)
            self.passes = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.passes += 1
            outputs: Tensor = self.inner(inputs)
            if self.passes == 2:
                outputs.register_hook(lambda gradient: gradient * math.inf)
            return outputs

    fitting, (report,) = fit(Overflowing(), split_of(12), batch_size=4, precision="fp16", ema={"decay": 0.9})
    assert (fitting.steps, fitting.skipped_steps) == (2, 1)
    assert math.isfinite(report.gradient_norm)
    assert math.isfinite(report.loss)


@pytest.mark.parametrize("count", [44, 37])
def test_class_weights_are_exact_under_accumulation(count: int) -> None:
    """Each example has its weight, whatever batch it falls into: a mean over a batch's own weights would not do."""
    split, loss = split_of(count), {"name": "cross_entropy", "class_weights": [5.0, 1.0, 0.2]}
    small, _ = fit(InDoubles(), split, epochs=2, batch_size=4, accumulate=4, loss=loss)
    large, _ = fit(InDoubles(), split, epochs=2, batch_size=16, loss=loss)
    for first, second in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)


def test_a_number_is_fitted_and_its_error_reported_in_its_own_unit() -> None:
    """A linear model without momentum on one batch: the update and the error are those of least squares by hand."""
    inputs = torch.randn(8, FEATURES, generator=torch.Generator().manual_seed(0))
    split = Split(inputs, inputs @ torch.arange(1.0, 1.0 + FEATURES))
    net = nn.Linear(FEATURES, 1)
    before = copy.deepcopy(net)
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.0}
    _, (report,) = fit(net, split, target=numbers_target(std=50.0), batch_size=8, optimizer=optimizer)
    known = PREPROCESS.normalise(split.inputs)
    errors = (before(known).squeeze(1) - split.targets).detach()
    gradient = 2 * (errors[:, None] * known).mean(0)
    torch.testing.assert_close(net.weight, before.weight - 0.1 * gradient)
    assert report.loss == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert report.metrics()["train.mae"] == pytest.approx(50.0 * errors.abs().mean().item(), rel=1e-5)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    split = split_of(7)
    whole, _ = fit(model().float(), split, epochs=2, batch_size=7)
    larger, _ = fit(model().float(), split, epochs=2, batch_size=1000)
    for first, second in zip(whole.model.parameters(), larger.model.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (3, 1)])
def test_one_example_under_batch_norm_is_one_clear_line(count: int, batch_size: int) -> None:
    net = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(TrialError, match=r"train\.batch_size: found a batch of 1 example\(s\), over which batch norm"):
        fit(net, split_of(count), batch_size=batch_size)
