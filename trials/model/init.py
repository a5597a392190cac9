"""Initial weights by name, for any module: built in or imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trials.recipe import Init


@torch.no_grad()
def initialise(model: nn.Module, name: Init) -> int:
    """Draw the weights of all linear, convolutional, recurrent and attention layers anew, from the global generator.

    In place; their biases become 0, and the number of matrices drawn is returned. ``default`` is Kaiming normal, but
    leaves the head, the last linear layer, to torch's smaller start, so that the loss begins near its value for an
    uninformed guess. Norms, embeddings and bare parameters stay as they are. The matrices that torch stacks in one
    parameter (the gates of a GRU; query, key and value) are drawn one by one.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    kept = linears[-1] if name == "default" and linears else None
    drawn = 0
    for module in model.modules():
        if module is not kept:
            for weight in _weights(module):
                INITS[name](weight, isinstance(module, _ConvNd))
                drawn += 1
            for bias in _biases(module):
                nn.init.zeros_(bias)
    return drawn


def _kaiming_normal(weight: Tensor, is_convolution: bool) -> None:
    """Std sqrt(2 / fan_in); convolutions by fan_out, to keep the gradient's variance (arXiv:1502.01852)."""
    nn.init.kaiming_normal_(weight, mode="fan_out" if is_convolution else "fan_in", nonlinearity="relu")


def _kaiming_uniform(weight: Tensor, is_convolution: bool) -> None:
    nn.init.kaiming_uniform_(weight, mode="fan_out" if is_convolution else "fan_in", nonlinearity="relu")


INITS: dict[str, Callable[[Tensor, bool], Any]] = {
    "default": _kaiming_normal,
    "xavier_uniform": lambda weight, _: nn.init.xavier_uniform_(weight),
    "xavier_normal": lambda weight, _: nn.init.xavier_normal_(weight),
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
    "lecun_normal": lambda weight, _: nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="linear"),
    "orthogonal": lambda weight, _: nn.init.orthogonal_(weight),
}


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """The weight matrices and kernels that belong to ``module`` itself."""
    if isinstance(module, (nn.Linear, _ConvNd)):
        yield module.weight
    elif isinstance(module, nn.RNNBase):
        for name, parameter in _own(module, "weight"):
            # An LSTM's projection is one matrix; all others are stacked, one for each gate.
            yield from [parameter] if name.startswith("weight_hr") else torch.split(parameter, module.hidden_size)
    elif isinstance(module, nn.MultiheadAttention):
        for name, parameter in _own(module, "proj_weight"):
            yield from torch.split(parameter, module.embed_dim) if name == "in_proj_weight" else [parameter]


def _biases(module: nn.Module) -> Iterator[Tensor]:
    if isinstance(module, (nn.Linear, _ConvNd, nn.RNNBase, nn.MultiheadAttention)):
        for _, parameter in _own(module, "bias"):
            yield parameter


def _own(module: nn.Module, word: str) -> Iterator[tuple[str, Tensor]]:
    """The parameters of ``module`` itself with ``word`` in their names."""
    return (found for found in module.named_parameters(recurse=False) if word in found[0])
