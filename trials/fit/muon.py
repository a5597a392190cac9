"""Muon for the matrices inside a network and AdamW for everything else, as one optimizer.

Sources: https://kellerjordan.github.io/posts/muon/, arXiv:2502.16982, ``torch.optim.Muon`` and ``torch.optim.AdamW``,
whose functional forms do the work. One optimizer, because a loss scaler must skip all parts of an update or none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim._muon import muon
from torch.optim.adamw import adamw

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that orthogonalises (https://kellerjordan.github.io/posts/muon/)."""
MUON_EPS = 1e-7
ADAMW_BETAS = (0.9, 0.999)
ADAMW_EPS = 1e-8


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of two or more dimensions that lie between the first layer and the head.

    A layer is a module with such a weight of its own; the first layer and the head are the first and the last of them
    in the order of ``model.modules()``, which is the order in which they were assigned. Embeddings are left out
    wherever they are, and so is whatever is not named as a weight (tables of places, class tokens).
    """
    layers = [
        (module, weights)
        for module in model.modules()
        if (weights := [p for name, p in module.named_parameters(recurse=False) if "weight" in name and p.ndim >= 2])
    ]
    # Weights that the first layer or the head shares with a layer between them (tied embeddings) stay outside too.
    outside = {id(weight) for _, weights in layers[:1] + layers[-1:] for weight in weights}
    outside |= {id(weight) for module, weights in layers if isinstance(module, nn.Embedding) for weight in weights}
    inside = {id(weight): weight for _, weights in layers for weight in weights if id(weight) not in outside}
    return list(inside.values())


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer over groups with ``orthogonal: True``, which Muon trains, and others, which AdamW trains.

    Convolution kernels (out, in, height, width) are orthogonalised as matrices (out, in * height * width). The step of
    a matrix is scaled by sqrt(max(1, rows / columns)), and its momentum is Nesterov's.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, orthogonal_steps: int) -> None:
        defaults = {"lr": lr, "weight_decay": 0.0, "momentum": momentum, "orthogonal_steps": orthogonal_steps}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Apply the gradients; a parameter without one is left as it is."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                self._step_by_muon(parameters, group)
            else:
                self._step_by_adamw(parameters, group)

    def _step_by_muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        # A copy where memory is laid out otherwise (channels last), a view elsewhere.
        matrices = [parameter.flatten(1) for parameter in parameters]
        gradients = [_gradient(parameter).flatten(1) for parameter in parameters]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if not self.state[parameter]:
                self.state[parameter] = {"momentum": torch.zeros_like(gradient)}
        muon(
            matrices,
            gradients,
            [self.state[parameter]["momentum"] for parameter in parameters],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=True,
            ns_coefficients=NEWTON_SCHULZ,
            ns_steps=group["orthogonal_steps"],
            eps=MUON_EPS,
            adjust_lr_fn="original",
            has_complex=False,
        )
        for parameter, matrix in zip(parameters, matrices, strict=True):
            # A view has been updated in place; torch refuses to copy it onto itself where its strides read otherwise,
            # as those of 1x1 kernels do with channels last.
            if matrix.data_ptr() != parameter.data_ptr():
                parameter.copy_(matrix.view_as(parameter))

    def _step_by_adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [_gradient(parameter) for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=ADAMW_BETAS[0],
            beta2=ADAMW_BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=ADAMW_EPS,
            maximize=False,
        )


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
