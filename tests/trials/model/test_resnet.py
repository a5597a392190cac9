import pytest
import torch
from parameters import count_parameters
from torch import nn

from trials.model.resnet import ResidualBlock, ResNet
from trials.recipe import Norm

NORMS: tuple[Norm, ...] = ("batch", "layer", "group", "none")


@pytest.mark.parametrize(("blocks", "millions"), [(3, "0.27"), (5, "0.46"), (7, "0.66"), (9, "0.85"), (18, "1.7")])
def test_sizes_are_those_of_the_paper(blocks: int, millions: str) -> None:
    """arXiv:1512.03385, Table 6: ResNet-20, 32, 44, 56 and 110."""
    count = count_parameters(ResNet(3, 10, width=16, blocks=blocks))
    decimals = len(millions.split(".")[1])
    assert f"{count / 1e6:.{decimals}f}" == millions


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("blocks", [1, 2])
def test_size_in_closed_form(norm: Norm, blocks: int) -> None:
    width = 5
    stages = [width, 2 * width, 4 * width]
    per_channel = 1 if norm == "none" else 2  # a bias, or a gain and a shift
    total = 9 * 1 * width + per_channel * width
    for before, wide in zip([width, *stages], stages, strict=False):
        total += 9 * before * wide + (2 * blocks - 1) * 9 * wide * wide + 2 * blocks * per_channel * wide
    assert count_parameters(ResNet(1, 7, width, blocks, norm)) == total + 7 * (stages[-1] + 1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_silenced_block_is_its_shortcut(norm: Norm, stride: int) -> None:
    torch.manual_seed(0)
    model = ResNet(3, 10, 4, 2, norm)
    block = next(m for m in model.modules() if isinstance(m, ResidualBlock) and m.stride == stride)
    channels = block.conv1.in_channels
    images = torch.randn(2, channels, 7, 6)
    shortcut = images[:, :, ::stride, ::stride]
    zeros = torch.zeros(2, block.conv1.out_channels - channels, *shortcut.shape[2:])
    expected = torch.cat([shortcut, zeros], dim=1).relu()
    assert not torch.equal(block(images), expected)
    model.start_as_shortcuts()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)  # as initialise does
    assert torch.equal(block(images), expected)
    assert block.conv1.weight.any()  # or the branch could never learn


@pytest.mark.parametrize("norm", NORMS)
def test_a_block_adds_its_branch(norm: Norm) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, stride=1, norm=norm)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    block.eval()
    images = torch.randn(2, 4, 5, 5)
    branch = nn.Sequential(block.conv1, block.norm1, nn.ReLU(), block.conv2, block.norm2)
    torch.testing.assert_close(block(images), (branch(images) + images).relu())


def test_the_second_and_third_stage_halve_the_image() -> None:
    model = ResNet(3, 10, 4, 2)
    maps, shapes = model.stem(torch.zeros(1, 3, 32, 30)), []
    for stage in model.stages:
        maps = stage(maps)
        shapes.append(tuple(maps.shape))
    assert shapes == [(1, 4, 32, 30), (1, 8, 16, 15), (1, 16, 8, 8)]


def test_spatial_dropout_drops_whole_maps_after_each_stage() -> None:
    torch.manual_seed(0)
    model = ResNet(1, 3, width=16, blocks=1, norm="layer", spatial_dropout=0.5)
    maps = model.stem(torch.randn(100, 1, 8, 8))
    for stage in model.stages:
        kept, maps = stage[:-1](maps), stage(maps)
        dropped = maps.flatten(2).eq(0).all(2)
        torch.testing.assert_close(maps[~dropped], kept[~dropped] * 2)
        whole = kept.flatten(2).ne(0).any(2)
        share = dropped[whole].float().mean().item()
        assert abs(share - 0.5) < 5 * (0.25 / whole.sum().item()) ** 0.5


def test_dropout_before_the_head_drops_features() -> None:
    torch.manual_seed(0)
    model = ResNet(1, 3, width=16, blocks=1, dropout=0.5)
    seen: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    model(torch.randn(100, 1, 8, 8))
    share = seen[0].eq(0).float().mean().item()
    assert abs(share - 0.5) < 5 * (0.25 / seen[0].numel()) ** 0.5
