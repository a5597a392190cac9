"""The built-in models for features, which take images too by flattening them."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from trials.model.norm import norm_layer
from trials.recipe import Norm


class LinearClassifier(nn.Sequential):
    """One linear layer on the flattened input: F * outputs + outputs parameters."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), outputs))


class MlpClassifier(nn.Module):
    """``depth`` hidden layers of ``width`` units, each linear, norm, ReLU, dropout, on the flattened input."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        width: int,
        depth: int,
        norm: Norm = "none",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.input_dropout = nn.Dropout(input_dropout)
        units = prod(input_shape)
        self.layers = nn.Sequential()
        for _ in range(depth):
            linear = nn.Linear(units, width)
            self.layers.append(
                nn.Sequential(linear, norm_layer(norm, width, "features"), nn.ReLU(), nn.Dropout(dropout))
            )
            units = width
        self.head = nn.Linear(units, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, *input_shape) -> (N, outputs)."""
        logits: Tensor = self.head(self.layers(self.input_dropout(self.flatten(inputs))))
        return logits
