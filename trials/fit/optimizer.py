"""Optimizers, with weight decay kept away from norm parameters and biases (arXiv:1812.01187, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trials.errors import ModelError, TrialError
from trials.recipe import Adam, AdamW, Optimizer, Sgd

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters that decay, and those that do not.

    Not decayed: all parameters of norm layers, everything named ``bias``, and every vector or scalar (the gains of
    home-made norms and layer scales). A parameter that two modules share is not decayed if either says so.
    """
    exempt: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, NORMS) or name.endswith("bias") or parameter.ndim <= 1:
                exempt.add(id(parameter))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if id(parameter) not in exempt]
    return decayed, [parameter for parameter in trainable if id(parameter) in exempt]


def _sgd(groups: list[dict[str, Any]], section: Sgd, fused: bool | None) -> torch.optim.Optimizer:
    if section.nesterov and section.momentum == 0:
        raise TrialError("train.optimizer.nesterov: found true with momentum 0, expected momentum above 0")
    return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum, nesterov=section.nesterov, fused=fused)


def _adam(groups: list[dict[str, Any]], section: Adam, fused: bool | None) -> torch.optim.Optimizer:
    betas = (section.beta1, section.beta2)
    return torch.optim.Adam(groups, lr=section.lr, betas=betas, eps=section.eps, fused=fused)


def _adamw(groups: list[dict[str, Any]], section: AdamW, fused: bool | None) -> torch.optim.Optimizer:
    betas = (section.beta1, section.beta2)
    return torch.optim.AdamW(groups, lr=section.lr, betas=betas, eps=section.eps, fused=fused)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Any, bool | None], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def build_optimizer(model: nn.Module, section: Optimizer, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer of ``section`` over the trainable parameters of ``model``, in at most two groups.

    ``fused`` runs each update as one kernel, where a GPU is at hand. Raises :class:`ModelError` when nothing is
    trainable.
    """
    decayed, exempt = split_by_decay(model)
    if not decayed and not exempt:
        raise ModelError("model.build: found no trainable parameters, expected at least one")
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for parameters, weight_decay in ((decayed, section.weight_decay), (exempt, 0.0))
        if parameters
    ]
    return OPTIMIZERS[section.name](groups, section, True if fused else None)


def clip_gradients(parameters: list[Tensor], clip_norm: float | None, clip_value: float | None) -> Tensor:
    """Clip the gradients in place and return their total norm from before, a scalar left on the device.

    The norm is clipped first and the entries after it: the second can only shrink what the first left, so both
    limits hold. Gradients must be unscaled already.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    if clip_value is not None:
        torch.nn.utils.clip_grad_value_(parameters, clip_value)
    return norm
