"""The built-in models. All take float32 (N, *input_shape) and give logits (N, classes)."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn
from torch.nn import functional


def initialise(model: nn.Module) -> None:
    """Kaiming normal weights (arXiv:1502.01852), drawn from the global generator, in place.

    Convolutions by fan_out, so that gradients keep their variance on the way back; hidden linear layers by fan_in. The
    head, the last linear layer, keeps torch's smaller start, so that the loss begins near log(classes). The last norm
    of each residual block starts at 0 (arXiv:1706.02677), so that each block starts as its shortcut.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and module is not linears[-1]:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, ResidualBlock):
            nn.init.zeros_(module.norm2.weight)


class LinearClassifier(nn.Sequential):
    """One linear layer on the flattened input: F * classes + classes parameters."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), classes))


class MlpClassifier(nn.Sequential):
    """``depth`` hidden layers of ``width`` units with ReLU and dropout on the flattened input."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int, depth: int, dropout: float) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        units = prod(input_shape)
        for _ in range(depth):
            layers += [nn.Linear(units, width), nn.ReLU(), nn.Dropout(dropout)]
            units = width
        super().__init__(*layers, nn.Linear(units, classes))
        initialise(self)


class ConvNet(nn.Module):
    """Stages of two 3x3 convolutions with batch norm and ReLU; each stage but the first halves the image.

    Stage s (from 0) has ``width * 2**s`` channels. The head sees each channel's mean over the last map.
    """

    def __init__(self, channels: int, classes: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in range(depth):
            if stage:
                layers.append(nn.MaxPool2d(2))
            wide = width * 2**stage
            layers += [*_conv_norm_relu(channels, wide), *_conv_norm_relu(wide, wide)]
            channels = wide
        self.stages = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return _logits(self.head, self.dropout, self.stages(images))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters (option A of arXiv:1512.03385, section 3.3)."""

    def __init__(self, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wide, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.stride = stride
        self.new_channels = wide - channels

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, wide, ceil(H / stride), ceil(W / stride))."""
        branch = functional.relu(self.norm1(self.conv1(images)))
        branch = self.norm2(self.conv2(branch))
        return functional.relu(branch + self._shortcut(images))

    def _shortcut(self, images: Tensor) -> Tensor:
        if self.stride > 1:
            images = images[:, :, :: self.stride, :: self.stride]
        return functional.pad(images, (0, 0, 0, 0, 0, self.new_channels)) if self.new_channels else images


class ResNet(nn.Module):
    """The CIFAR ResNet: a 3x3 convolution, three stages of ``blocks`` residual blocks, mean over the map, linear.

    6 * blocks + 2 layers; ``width``, twice and four times as many channels at full, half and quarter size
    (arXiv:1512.03385, section 4.2, where width is 16).
    """

    def __init__(self, channels: int, classes: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_conv_norm_relu(channels, width)]
        narrow = width
        for stage in range(3):
            wide = width * 2**stage
            for block in range(blocks):
                layers.append(ResidualBlock(narrow, wide, stride=2 if stage and not block else 1))
                narrow = wide
        self.stages = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(narrow, classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return _logits(self.head, self.dropout, self.stages(images))


def _conv_norm_relu(channels: int, wide: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()


def _logits(head: nn.Linear, dropout: nn.Dropout, maps: Tensor) -> Tensor:
    logits: Tensor = head(dropout(maps.mean((2, 3))))
    return logits
