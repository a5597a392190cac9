"""Weights go from a file into a model and back part by part, whatever their layout in memory, and come out the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trials.average.filling import fill, fits, parts_of, write_as
from trials.average.stored import PART_ELEMENTS, opened_alike
from trials.checkpoint import write_weights


class OnDemand(nn.Module):
    """Its state is made of its parameter when asked for, and has no memory in common with it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "doubled"] = self.weight.detach() * 2

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:  # type: ignore[override]
        self.weight.data.copy_(state_dict[prefix + "doubled"] / 2)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    tied = nn.Linear(4, 4)
    wide = nn.Linear(PART_ELEMENTS // 64, 65)  # a part and a bit
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), tied, tied, wide, OnDemand() if seed > 9 else nn.ReLU())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("seed", [0, 10])
def test_a_filled_model_is_that_of_load_state_dict_and_is_written_as_it_was(
    tmp_path: Path, channels_last: bool, seed: int
) -> None:
    path, model = tmp_path / "weights.safetensors", network(seed + 1)
    write_weights(path, network(seed).state_dict())
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        assert not model[0].weight.is_contiguous()
    with opened_alike([path]) as (file,):
        assert fits(model, file)
        fill(model, file, parts_of(file))
        write_as(model, file, tmp_path / "again.safetensors")
    for name, tensor in network(seed).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_another_name_or_shape_does_not_fit(tmp_path: Path) -> None:
    for other in (nn.Linear(4, 3), nn.Linear(4, 4, bias=False), nn.Sequential(nn.Linear(4, 4))):
        write_weights(tmp_path / "weights", other.state_dict())
        with opened_alike([tmp_path / "weights"]) as (file,):
            assert not fits(nn.Linear(4, 4), file)
