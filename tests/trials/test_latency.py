from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from trials.data import InputSpec
from trials.latency import RUNS, WARM_UPS, latency_seconds


class Recording(nn.Module):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.given.append(inputs.clone())
        return inputs


def clock(seconds: list[float]) -> Iterator[float]:
    """Time before and after runs that take so many ``seconds``."""
    now = 0.0
    for each in seconds:
        yield now
        now += each
        yield now
        now += 1000.0  # between two runs


def test_the_median_of_runs_on_one_example() -> None:
    model = Recording()
    # An outlier changes a mean, not a median.
    ticks = clock([100.0] + [0.25] * (RUNS // 2 - 1) + [0.5] * (RUNS // 2))
    assert latency_seconds(model, InputSpec("features", (3,)), lambda: next(ticks)) == pytest.approx(0.5)
    assert len(model.given) == WARM_UPS + RUNS
    assert all(given.shape == (1, 3) for given in model.given)


def test_a_text_is_read_to_its_end() -> None:
    model = Recording()
    latency_seconds(model, InputSpec("text", (5,), 9))
    assert torch.equal(model.given[0], torch.ones(1, 5, dtype=torch.int64))
