"""A2: the average is the arithmetic mean of the snapshots; which epochs are snapshots; exact continuation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trials.average.swa import WeightSwa, first_averaged_epoch, snapshots_until
from trials.recipe import Swa


def drawn(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights and buffers, taken on by the model."""
    state = model.state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        else:
            tensor.add_(1)
    return copy.deepcopy(state)


def test_the_average_is_the_arithmetic_mean_of_the_snapshots_whatever_it_began_with() -> None:
    model, generator = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.Generator().manual_seed(0)
    swa = WeightSwa(model)
    snapshots = []
    for count in range(7):
        snapshots.append(drawn(model, generator))
        swa.take(count)
    for name, tensor in swa.model.state_dict().items():
        if tensor.is_floating_point():
            mean = torch.stack([snapshot[name].double() for snapshot in snapshots]).mean(0)
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-5, atol=1e-6)
        else:
            assert tensor == 7, "counters are those of the last snapshot"


def test_loading_the_copy_continues_bit_for_bit() -> None:
    model, generator = nn.Linear(3, 4), torch.Generator().manual_seed(0)
    unbroken, broken = WeightSwa(model), WeightSwa(model)
    for count in range(6):
        drawn(model, generator)
        unbroken.take(count)
        if count == 3:
            saved, broken = broken.model.state_dict(), WeightSwa(model)
            broken.model.load_state_dict(saved)
        broken.take(count)
    for one, other in zip(unbroken.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("start", "epochs", "first"),
    [(0.75, 12, 10), (0.0, 5, 1), (0.7, 10, 8), (0.75, 10, 8), (0.99, 4, 4), (0.5, 1, 1)],
)
def test_averaging_begins_with_the_first_epoch_trained_after_its_start(start: float, epochs: int, first: int) -> None:
    assert first_averaged_epoch(Swa(start=start), epochs) == first


def test_a_snapshot_is_due_after_every_so_many_epochs_from_the_first_on_extensions_too() -> None:
    section = Swa(start=0.5, every_epochs=3)
    counts = [snapshots_until(epoch, section, epochs=8) for epoch in range(13)]
    due = [epoch for epoch in range(1, 13) if counts[epoch] > counts[epoch - 1]]
    assert due == [5, 8, 11]
