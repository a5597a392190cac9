import pytest
import torch
from parameters import count_parameters
from torch import nn

from trials.model.convnet import ConvNet
from trials.recipe import Norm


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_sizes(depth: int, norm: Norm) -> None:
    total, before = 0, 3
    for stage in range(depth):
        wide = 6 * 2**stage
        # two convolutions, and for each a gain and a shift, or only a bias where there is no norm
        total += 9 * before * wide + 9 * wide * wide + 2 * (wide if norm == "none" else 2 * wide)
        before = wide
    assert count_parameters(ConvNet(3, 10, width=6, depth=depth, norm=norm)) == total + 10 * (before + 1)


def test_each_stage_but_the_first_halves_the_image() -> None:
    stages = ConvNet(3, 10, width=4, depth=3).stages
    maps, shapes = torch.zeros(1, 3, 33, 20), []
    for stage in stages:
        maps = stage(maps)
        shapes.append(tuple(maps.shape))
    assert shapes == [(1, 4, 33, 20), (1, 8, 16, 10), (1, 16, 8, 5)]


def test_the_head_sees_the_mean_of_each_map() -> None:
    torch.manual_seed(0)
    model = ConvNet(1, 3, width=4, depth=2, norm="group").eval()
    images = torch.randn(2, 1, 8, 8)
    means = model.stages(images).flatten(2).sum(2) / 16
    torch.testing.assert_close(model(images), means @ model.head.weight.T + model.head.bias)


def test_spatial_dropout_drops_whole_maps_after_each_stage() -> None:
    torch.manual_seed(0)
    model = ConvNet(1, 3, width=16, depth=2, norm="layer", spatial_dropout=0.25)
    images = torch.randn(100, 1, 4, 4)
    for stage in model.stages:
        kept = stage[:-1](images)
        images = stage(images)
        whole = kept.flatten(2).ne(0).any(2)  # a map that is 0 before any dropout tells nothing
        dropped = images.flatten(2).eq(0).all(2)
        torch.testing.assert_close(images[~dropped], kept[~dropped] / 0.75)  # the others are whole, and scaled up
        share = dropped[whole].float().mean().item()
        assert abs(share - 0.25) < 5 * (0.25 * 0.75 / whole.sum().item()) ** 0.5
    assert isinstance(model.stages[0][-1], nn.Dropout2d)


def test_dropout_before_the_head_drops_features() -> None:
    torch.manual_seed(0)
    model = ConvNet(1, 3, width=64, depth=1, dropout=0.5)
    seen: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    model(torch.randn(100, 1, 4, 4))
    share = seen[0].eq(0).float().mean().item()
    assert abs(share - 0.5) < 5 * (0.25 / seen[0].numel()) ** 0.5
