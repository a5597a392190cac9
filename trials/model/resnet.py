"""The built-in residual network for small images: the CIFAR ResNet of arXiv:1512.03385, section 4.2."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from trials.model.convnet import conv_norm_relu, convolution
from trials.model.norm import norm_layer
from trials.recipe import Norm


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters (option A of arXiv:1512.03385, section 3.3)."""

    def __init__(self, channels: int, wide: int, stride: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.conv1 = convolution(channels, wide, norm, stride)
        self.norm1 = norm_layer(norm, wide, "maps")
        self.conv2 = convolution(wide, wide, norm)
        self.norm2 = norm_layer(norm, wide, "maps")
        self.stride = stride
        self.new_channels = wide - channels

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, wide, ceil(H / stride), ceil(W / stride))."""
        branch = functional.relu(self.norm1(self.conv1(images)))
        branch = self.norm2(self.conv2(branch))
        return functional.relu(branch + self._shortcut(images))

    def start_as_shortcut(self) -> None:
        """Silence the branch: the last norm's gain, or the last convolution where there is no norm, becomes 0."""
        last = self.conv2 if isinstance(self.norm2, nn.Identity) else self.norm2
        assert isinstance(last.weight, Tensor)
        nn.init.zeros_(last.weight)

    def _shortcut(self, images: Tensor) -> Tensor:
        if self.stride > 1:
            images = images[:, :, :: self.stride, :: self.stride]
        return functional.pad(images, (0, 0, 0, 0, 0, self.new_channels)) if self.new_channels else images


class ResNet(nn.Module):
    """A 3x3 convolution, three stages of ``blocks`` residual blocks, mean over the map, linear.

    6 * blocks + 2 layers; ``width``, twice and four times as many channels at full, half and quarter size (``width`` is
    16 in arXiv:1512.03385). Each stage ends with spatial dropout.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        width: int,
        blocks: int,
        norm: Norm = "batch",
        dropout: float = 0.0,
        spatial_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm_relu(channels, width, norm))
        self.stages = nn.Sequential()
        narrow = width
        for stage in range(3):
            wide = width * 2**stage
            layers = nn.Sequential()
            for block in range(blocks):
                layers.append(ResidualBlock(narrow, wide, 2 if stage and not block else 1, norm))
                narrow = wide
            self.stages.append(layers.append(nn.Dropout2d(spatial_dropout)))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(narrow, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs)."""
        maps = self.stages(self.stem(images))
        logits: Tensor = self.head(self.dropout(maps.mean((2, 3))))
        return logits

    def start_as_shortcuts(self) -> None:
        """Let each residual block start as its shortcut (arXiv:1706.02677, section 5.1)."""
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.start_as_shortcut()
