"""The built-in convolutional network for small images."""

from __future__ import annotations

from torch import Tensor, nn

from trials.model.norm import norm_layer
from trials.recipe import Norm


def convolution(channels: int, wide: int, norm: Norm, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps, or divides by ``stride``, the size of its maps; a norm behind it has the bias."""
    return nn.Conv2d(channels, wide, 3, stride=stride, padding=1, bias=norm == "none")


def conv_norm_relu(channels: int, wide: int, norm: Norm) -> tuple[nn.Module, ...]:
    """(N, channels, H, W) -> (N, wide, H, W), in the order of arXiv:1502.03167, section 3.2."""
    return convolution(channels, wide, norm), norm_layer(norm, wide, "maps"), nn.ReLU()


class ConvNet(nn.Module):
    """Stages of two 3x3 convolutions with norm and ReLU; each stage but the first halves the image.

    Stage s (from 0) has ``width * 2**s`` channels and ends with spatial dropout. The head sees each channel's mean over
    the last map.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        width: int,
        depth: int,
        norm: Norm = "batch",
        dropout: float = 0.0,
        spatial_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        for stage in range(depth):
            wide = width * 2**stage
            pooling = [nn.MaxPool2d(2)] if stage else []
            layers = [*conv_norm_relu(channels, wide, norm), *conv_norm_relu(wide, wide, norm)]
            self.stages.append(nn.Sequential(*pooling, *layers, nn.Dropout2d(spatial_dropout)))
            channels = wide
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs)."""
        logits: Tensor = self.head(self.dropout(self.stages(images).mean((2, 3))))
        return logits
