"""K3: evaluation over the whole split, and the interval and digits that its size supports."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trials.data import Preprocess, Split
from trials.fit.evaluate import accuracy_digits, evaluate, wilson_interval

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


def identity(features: int) -> Preprocess:
    return Preprocess(kind="features", shape=(features,), scale=1.0, mean=(0.0,) * features, std=(1.0,) * features)


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
    found = evaluate(model, Split(logits, targets), identity(3), CPU, batch_size=4, precision="fp32")
    assert model.sizes == [4, 4, 4, 1]
    assert found.loss == pytest.approx(sum(per_example) / 13, rel=1e-6)
    assert found.correct == sum(int(row.argmax()) == int(target) for row, target in zip(logits, targets, strict=True))
    assert found.accuracy == found.correct / 13
    assert found.count == 13
    batch_means = [sum(per_example[start : start + 4]) / len(per_example[start : start + 4]) for start in (0, 4, 8, 12)]
    assert abs(found.loss - sum(batch_means) / 4) > 1  # what a running mean of batches would have said


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_of_the_model_is_put_back_even_after_an_error(training: bool) -> None:
    model = Recording().train(training)
    split = Split(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    evaluate(model, split, identity(3), CPU, batch_size=2, precision="fp32")
    assert model.training is training
    with pytest.raises(RuntimeError):
        evaluate(model, split, identity(5), CPU, batch_size=2, precision="fp32")
    assert model.training is training


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
