from collections.abc import Iterator
from math import prod

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from trials.data import Splits, load_splits
from trials.model import build_model
from trials.model.blocks import ConvNet, LinearClassifier, MlpClassifier, ResidualBlock, ResNet
from trials.recipe import Data, Model, SmallConvnet, SmallResnet


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def randomised(model: nn.Module) -> nn.Module:
    """Every parameter drawn anew, so that nothing is zero by its initialisation."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 10), ((3, 5, 7), 4), ((13,), 2)])
def test_linear_and_mlp_sizes(shape: tuple[int, ...], classes: int) -> None:
    inputs = prod(shape)
    assert parameters(LinearClassifier(shape, classes)) == (inputs + 1) * classes
    for depth in (1, 3):
        hidden = (inputs + 1) * 24 + (depth - 1) * 25 * 24
        assert parameters(MlpClassifier(shape, classes, width=24, depth=depth, dropout=0.1)) == hidden + 25 * classes


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_convnet_sizes(depth: int) -> None:
    total, before = 0, 3
    for stage in range(depth):
        wide = 6 * 2**stage
        total += 9 * before * wide + 9 * wide * wide + 2 * 2 * wide  # two convolutions, two norms of gain and shift
        before = wide
    assert parameters(ConvNet(3, 10, width=6, depth=depth, dropout=0.0)) == total + 10 * (before + 1)


@pytest.mark.parametrize(("blocks", "millions"), [(3, "0.27"), (5, "0.46"), (7, "0.66"), (9, "0.85"), (18, "1.7")])
def test_resnet_sizes_are_those_of_the_paper(blocks: int, millions: str) -> None:
    """arXiv:1512.03385, Table 6: ResNet-20, 32, 44, 56 and 110."""
    count = parameters(ResNet(3, 10, width=16, blocks=blocks, dropout=0.0))
    decimals = len(millions.split(".")[1])
    assert f"{count / 1e6:.{decimals}f}" == millions


def test_resnet_size_in_closed_form() -> None:
    width, blocks = 5, 2
    stage = [width, 2 * width, 4 * width]
    total = 9 * 1 * width + 2 * width
    for before, wide in zip([width, *stage], stage, strict=False):
        total += 9 * before * wide + (2 * blocks - 1) * 9 * wide * wide + 2 * blocks * 2 * wide
    assert parameters(ResNet(1, 7, width, blocks, dropout=0.0)) == total + 7 * (stage[-1] + 1)


def test_convolutions_start_with_kaiming_fan_out_variance() -> None:
    torch.manual_seed(0)
    for model in (ConvNet(3, 10, 64, 2, 0.0), ResNet(3, 10, 32, 1, 0.0)):
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
                variance = 2 / (9 * module.out_channels)
                # the variance of n normal draws has relative standard error sqrt(2 / n)
                error = (2 / module.weight.numel()) ** 0.5
                assert abs(module.weight.var().item() / variance - 1) < 5 * error


def test_hidden_linears_start_with_fan_in_variance_and_the_head_smaller() -> None:
    torch.manual_seed(0)
    linears = [m for m in MlpClassifier((200,), 50, 300, 2, 0.0).modules() if isinstance(m, nn.Linear)]
    for layer in linears[:-1]:
        error = (2 / layer.weight.numel()) ** 0.5
        assert abs(layer.weight.var().item() * layer.in_features / 2 - 1) < 5 * error
        assert not layer.bias.any()
    assert linears[-1].weight.abs().max().item() <= linears[-1].in_features ** -0.5


@pytest.mark.parametrize("stride", [1, 2])
def test_a_residual_block_starts_as_its_shortcut(stride: int) -> None:
    torch.manual_seed(0)
    model = ResNet(3, 10, 4, 2, 0.0)
    for name, module in model.named_modules():
        if isinstance(module, ResidualBlock):
            assert not module.norm2.weight.any(), name
    block = next(m for m in model.modules() if isinstance(m, ResidualBlock) and m.stride == stride)
    channels = block.conv1.in_channels
    images = torch.randn(2, channels, 7, 6)
    shortcut = images[:, :, ::stride, ::stride]
    zeros = torch.zeros(2, block.conv1.out_channels - channels, *shortcut.shape[2:])
    assert torch.equal(block(images), torch.cat([shortcut, zeros], dim=1).relu())


def test_a_residual_block_adds_its_branch() -> None:
    torch.manual_seed(0)
    block = randomised(ResidualBlock(4, 4, stride=1)).eval()
    assert isinstance(block, ResidualBlock)
    images = torch.randn(2, 4, 5, 5)
    branch = nn.Sequential(block.conv1, block.norm1, nn.ReLU(), block.conv2, block.norm2)
    torch.testing.assert_close(block(images), (branch(images) + images).relu())


def test_each_stage_halves_the_image() -> None:
    images = torch.zeros(1, 3, 32, 32)
    assert ConvNet(3, 10, 4, 3, 0.0).stages(images).shape == (1, 16, 8, 8)
    assert ResNet(3, 10, 4, 2, 0.0).stages(images).shape == (1, 16, 8, 8)


def test_the_built_in_norm_on_the_worked_example() -> None:
    """Inputs 1, 3, 5, 7: mean 4, biased variance 5; the running variance takes the unbiased 20 / 3."""
    norm = next(m for m in ConvNet(1, 2, 1, 1, 0.0).modules() if isinstance(m, nn.BatchNorm2d))
    output = norm(torch.tensor([1.0, 3.0, 5.0, 7.0]).view(4, 1, 1, 1)).flatten()
    torch.testing.assert_close(output, torch.tensor([-1.342, -0.447, 0.447, 1.342]), atol=5e-4, rtol=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.1 * 4.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([0.9 * 1.0 + 0.1 * 20 / 3]))


@pytest.mark.parametrize(
    "model",
    [MlpClassifier((1, 8, 8), 3, 8, 2, 1.0), ConvNet(1, 3, 4, 2, 1.0), ResNet(1, 3, 4, 1, 1.0)],
    ids=lambda model: type(model).__name__,
)
def test_full_dropout_leaves_only_the_heads_bias_while_training(model: nn.Module) -> None:
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.train()(images), head.bias.expand(5, 3))
    assert not torch.equal(model.eval()(images), head.bias.expand(5, 3))


def _accuracy_after(model: nn.Module, splits: Splits, epochs: int) -> float:
    """Test accuracy after AdamW at 0.01 under one-cycle, in batches of 64."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    steps = epochs * -(-len(splits.train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(splits.train), generator=generator).split(64):  # type: ignore[no-untyped-call]
            inputs = splits.preprocess.normalise(splits.train.inputs[batch])
            optimizer.zero_grad()
            cross_entropy(model(inputs), splits.train.targets[batch]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        logits = model.eval()(splits.preprocess.normalise(splits.test.inputs))
    return float((logits.argmax(1) == splits.test.targets).float().mean())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine make small steps ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("model", [SmallConvnet(build="small_convnet"), SmallResnet(build="small_resnet")])
def test_the_small_networks_learn_digits_within_fifteen_epochs(model: Model) -> None:
    splits = load_splits(Data(source="digits"), torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build_model(model, splits.preprocess.shape, len(splits.classes))
        assert _accuracy_after(built, splits, epochs=15) >= 0.985
