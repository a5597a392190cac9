"""A batch in chunks: the gradient, the weights and the numbers of the whole; what is tried when memory is short."""

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
from trials.errors import OutOfMemory, TrialError
from trials.fit.evaluate import evaluate, evaluation_batch_size
from trials.fit.fitting import Fitting
from trials.fit.micro_batch import chunk_sizes, smaller_micro_batch
from trials.fit.step import Variation, gather_gradient, steps_per_epoch, train_epoch
from trials.fit.tally import EpochTraining
from trials.recipe import Recipe, Train

CPU = torch.device("cpu")
FEATURES, CLASSES = 5, 3
PREPROCESS = features(FEATURES, mean=0.5, std=2.0)
TARGET = Target("classification", ("a", "b", "c"), (1, 2, 3))
MIXUP = {"mix": "mixup", "mix_alpha": 1.0}


class Net(nn.Module):
    """Layer norm, in float64, so that sums in another order agree to many digits; notes how many it is shown."""

    def __init__(self, outputs: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Linear(FEATURES, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, outputs)
        self.inner = nn.Sequential(*layers).double()
        self.shown: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.shown.append(len(inputs))
        outputs: Tensor = self.inner(inputs.double())
        return outputs


def prepared(
    net: nn.Module, split: Split, train: dict[str, Any], data: dict[str, Any] | None = None, target: Target = TARGET
) -> tuple[Fitting, Variation, Recipe]:
    section = {"optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 3, **train}
    recipe, splits = recipe_of(section, data, seed=3), splits_of(split, PREPROCESS, target)
    steps = steps_per_epoch(len(split), recipe.train)
    return Fitting(net, recipe, target, steps, CPU), Variation(splits, recipe, CPU), recipe


def fit(net: nn.Module, split: Split, train: dict[str, Any], **more: Any) -> tuple[Fitting, list[EpochTraining]]:
    fitting, vary, recipe = prepared(net, split, train, **more)
    epochs = range(1, recipe.train.epochs + 1)
    return fitting, [train_epoch(fitting, vary.splits, vary, epoch, recipe) for epoch in epochs]


@pytest.mark.parametrize(
    ("count", "smallest", "micro_batch", "expected"),
    [
        (8, 8, None, [8]),
        (8, 8, 8, [8]),
        (8, 8, 100, [8]),
        (8, 8, 4, [4, 4]),
        (9, 9, 4, [4, 5]),
        (10, 10, 4, [4, 4, 2]),
        (9, 9, 8, [9]),
        (3, 3, 1, [1, 1, 1]),
        (1, 1, 4, [1]),
        (9, 8, 4, [4, 5]),  # as many chunks as the ranks with eight
        (10, 9, 4, [4, 6]),
        (4, 3, 1, [1, 1, 2]),
    ],
)
def test_a_last_chunk_of_one_joins_the_one_before(
    count: int, smallest: int, micro_batch: int | None, expected: list[int]
) -> None:
    assert chunk_sizes(count, smallest, Train(micro_batch=micro_batch)) == expected


def test_no_more_than_a_micro_batch_passes_at_once() -> None:
    net, split = Net(), random_split(25, FEATURES, CLASSES)
    train = {"batch_size": 8, "micro_batch": 3, "epochs": 1}
    fitting, vary, recipe = prepared(net, split, train)
    train_epoch(fitting, vary.splits, vary, 1, recipe)
    assert net.shown == [3, 3, 2, 3, 3, 2, 3, 3, 3]
    net.shown.clear()
    evaluate(net, split, vary.splits, recipe, CPU)
    assert net.shown == [3] * 8 + [1]


def test_evaluation_takes_several_batches_at_once_unless_memory_is_short() -> None:
    sizes = [evaluation_batch_size(recipe_of({"batch_size": 8, "micro_batch": micro})) for micro in (None, 5, 16, 64)]
    assert sizes == [32, 5, 16, 32]


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 11])
@pytest.mark.parametrize("data", [None, MIXUP], ids=["plain", "mixup"])
def test_the_gradient_is_that_of_the_whole_batch(micro_batch: int, data: dict[str, Any] | None) -> None:
    """Of one batch of 11 that is 0.3 of an update: by hand, from the inputs that the whole batch becomes."""
    split, rows = random_split(20, FEATURES, CLASSES), torch.arange(3, 14)
    weights = torch.tensor([5.0, 1.0, 0.2])
    section = {"name": "cross_entropy", "class_weights": weights.tolist(), "label_smoothing": 0.1}
    fitting, vary, _ = prepared(Net(), split, {"batch_size": 11, "micro_batch": micro_batch, "loss": section}, data)
    fitting.begin_epoch(1)
    vary.begin_epoch(1)
    batch = gather_gradient(fitting, vary, rows, share=0.3)

    twin = Net()
    vary.begin_epoch(1)
    inputs, targets, blend = vary(rows)
    other, lam = blend or (targets, 1.0)
    outputs = twin(inputs).float()

    def mean(labels: Tensor) -> Tensor:
        losses = functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=0.1)
        return (losses * weights[labels]).mean()

    loss = lam * mean(targets) + (1 - lam) * mean(other)
    (0.3 * loss).backward()
    assert (lam < 1) == (data is not None)
    torch.testing.assert_close(batch.loss, loss.detach())
    torch.testing.assert_close(batch.outputs, outputs.detach())
    for mine, theirs in zip(fitting.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "bce", "mse", "huber"])
@pytest.mark.parametrize("micro_batch", [1, 4, 7])
def test_a_training_in_chunks_ends_with_the_weights_of_one_without(loss: str, micro_batch: int) -> None:
    """Shuffled, blended, gathered in uneven groups, clipped, averaged; the numbers of each epoch agree too."""
    split, target, outputs = random_split(41, FEATURES, CLASSES), TARGET, CLASSES
    if loss in ("mse", "huber"):
        split, target, outputs = Split(split.inputs, split.inputs.sum(1)), numbers_target(std=2.0), 1
    shared = {"batch_size": 16, "accumulate": 2, "loss": {"name": loss}, "ema": {"decay": 0.9}, "clip_norm": 0.5}
    chunked, its_epochs = fit(Net(outputs), split, shared | {"micro_batch": micro_batch}, data=MIXUP, target=target)
    whole, epochs = fit(Net(outputs), split, shared, data=MIXUP, target=target)
    check_close(chunked.model, whole.model)
    check_close(chunked.averages()["ema"], whole.averages()["ema"])
    for mine, theirs in zip(its_epochs, epochs, strict=True):
        assert mine.metrics() == pytest.approx(theirs.metrics(), rel=1e-6)


def check_close(mine: nn.Module, theirs: nn.Module) -> None:
    for (name, first), second in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("micro_batch", [8, 9, 1000])
def test_a_micro_batch_of_the_whole_batch_changes_no_bit(micro_batch: int) -> None:
    split, train = random_split(41, FEATURES, CLASSES), {"batch_size": 8, "epochs": 2}

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    chunked, its_epochs = fit(net(), split, train | {"micro_batch": micro_batch}, data=MIXUP)
    whole, epochs = fit(net(), split, train, data=MIXUP)
    assert its_epochs == epochs
    for mine, theirs in zip(chunked.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_overflow_in_one_chunk_of_fp16_skips_the_update_of_the_batch() -> None:
    class Overflowing(nn.Module):
        """A gradient beyond fp16 in its third pass."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(FEATURES, CLASSES)
            self.passes = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.passes += 1
            outputs: Tensor = self.inner(inputs)
            if self.passes == 3:
                outputs.register_hook(lambda gradient: gradient * math.inf)
            return outputs

    train = {"batch_size": 4, "micro_batch": 2, "epochs": 1, "precision": "fp16"}
    fitting, _ = fit(Overflowing(), random_split(12, FEATURES, CLASSES), train)
    assert (fitting.steps, fitting.skipped_steps) == (2, 1)


def test_batch_norm_sees_a_chunk() -> None:
    """The running mean after one batch of 6 in chunks of 2 is that of three steps, by hand."""
    norm = nn.BatchNorm1d(FEATURES, momentum=0.5)
    twin = copy.deepcopy(norm)
    split = random_split(6, FEATURES, CLASSES)
    net = nn.Sequential(norm, nn.Linear(FEATURES, CLASSES))
    fitting, vary, _ = prepared(net, split, {"batch_size": 6, "micro_batch": 2})
    fitting.begin_epoch(1)
    gather_gradient(fitting, vary, torch.arange(6), share=1.0)
    for chunk in PREPROCESS.normalise(split.inputs).split(2):
        twin(chunk)
    torch.testing.assert_close(norm.running_mean, twin.running_mean)
    assert norm.num_batches_tracked == 3


def test_where_batch_norm_needs_more_than_fits_nothing_smaller_is_left() -> None:
    net = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    line = r"train\.micro_batch: found a batch of 1 example\(s\), over which batch norm has no variance; expected at"
    with pytest.raises(OutOfMemory, match=line):
        fit(net, random_split(8, FEATURES, CLASSES), {"batch_size": 4, "micro_batch": 1})
    line = r"train\.batch_size: found a batch of 1 example\(s\)"
    with pytest.raises(TrialError, match=line) as caught:
        fit(net, random_split(8, FEATURES, CLASSES), {"batch_size": 1, "micro_batch": 1})
    assert not isinstance(caught.value, OutOfMemory)


def tried(recipe: Recipe) -> list[int]:
    """All that would be tried one after the other."""
    found = []
    while (smaller := smaller_micro_batch(recipe)) is not None:
        found.append(smaller)
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"micro_batch": smaller})})
    return found


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"batch_size": 128}, [64, 32, 16, 8, 4, 2, 1]),
        ({"batch_size": 100}, [50, 25, 12, 6, 3, 1]),
        ({"batch_size": 128, "micro_batch": 5}, [2, 1]),
        ({"batch_size": 8, "micro_batch": 100}, [4, 2, 1]),
        ({"batch_size": 8, "micro_batch": 1}, []),
        ({"batch_size": 1}, []),
        ({"batch_size": 100, "data_parallel": 8}, [6, 3, 1]),  # of the 13 that a process has of a batch
    ],
)
def test_each_try_is_half_of_what_passed_before_down_to_one(train: dict[str, Any], expected: list[int]) -> None:
    recipe = recipe_of(train)
    assert tried(recipe) == expected
    assert recipe == recipe_of(train)


def test_a_model_that_cannot_train_on_one_is_not_tried_with_one() -> None:
    batch_norm = recipe_of({"batch_size": 8}, model={"build": "mlp", "norm": "batch"})
    layer_norm = recipe_of({"batch_size": 8}, model={"build": "mlp", "norm": "layer"})
    assert (tried(batch_norm), tried(layer_norm)) == ([4, 2], [4, 2, 1])
