"""Optimizers, with weight decay kept away from norm parameters and biases (arXiv:1812.01187, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trials.errors import ModelError, TrialError
from trials.fit.muon import MuonWithAdamW, hidden_matrices
from trials.recipe import Adagrad, Adam, Muon, Optimizer, RmsProp, Sgd

Groups = list[dict[str, Any]]

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that decay, and those that do not; frozen ones too, since they may be thawed later.

    Not decayed: all parameters of norm layers, everything named ``bias``, every vector or scalar, and what is one in
    more dimensions without being named a weight (the gains of home-made norms, layer scales). Embeddings decay like
    other weights. A parameter that two modules share is not decayed if either says so.
    """
    exempt: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_vector = parameter.ndim <= 1 or ("weight" not in name and parameter.numel() == max(parameter.shape))
            if isinstance(module, NORMS) or name.endswith("bias") or is_vector:
                exempt.add(id(parameter))
    decayed = [parameter for parameter in model.parameters() if id(parameter) not in exempt]
    return decayed, [parameter for parameter in model.parameters() if id(parameter) in exempt]


def _sgd(groups: Groups, section: Sgd, fused: bool | None) -> torch.optim.Optimizer:
    if section.nesterov and section.momentum == 0:
        raise TrialError("train.optimizer.nesterov: found true with momentum 0, expected momentum above 0")
    return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum, nesterov=section.nesterov, fused=fused)


def _adam(groups: Groups, section: Adam, fused: bool | None) -> torch.optim.Optimizer:
    betas = (section.beta1, section.beta2)
    return torch.optim.Adam(groups, lr=section.lr, betas=betas, eps=section.eps, fused=fused)


def _adamw(groups: Groups, section: Adam, fused: bool | None) -> torch.optim.Optimizer:
    betas = (section.beta1, section.beta2)
    return torch.optim.AdamW(groups, lr=section.lr, betas=betas, eps=section.eps, fused=fused)


def _nadam(groups: Groups, section: Adam, _: bool | None) -> torch.optim.Optimizer:
    return torch.optim.NAdam(groups, lr=section.lr, betas=(section.beta1, section.beta2), eps=section.eps)


def _radam(groups: Groups, section: Adam, _: bool | None) -> torch.optim.Optimizer:
    return torch.optim.RAdam(groups, lr=section.lr, betas=(section.beta1, section.beta2), eps=section.eps)


def _rmsprop(groups: Groups, section: RmsProp, _: bool | None) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, lr=section.lr, alpha=section.alpha, momentum=section.momentum, eps=section.eps)


def _adagrad(groups: Groups, section: Adagrad, _: bool | None) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(groups, lr=section.lr, eps=section.eps)


def _muon(groups: Groups, section: Muon, _: bool | None) -> torch.optim.Optimizer:
    return MuonWithAdamW(groups, section.lr, section.momentum, section.orthogonal_steps)


OPTIMIZERS: dict[str, Callable[[Groups, Any, bool | None], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "nadam": _nadam,
    "radam": _radam,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "muon": _muon,
}


def build_optimizer(
    model: nn.Module,
    section: Optimizer,
    fused: bool = False,
    lr_of: Callable[[str], float] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of ``section`` over all parameters of ``model``.

    A frozen parameter is there too, so that it can be thawed later: without a gradient no optimizer touches it.
    ``lr_of`` gives, by the name of a parameter, the multiple of the learning rate at which it is trained; each group
    says its own under ``lr_factor``. ``fused`` runs each update as one kernel, where torch has one and a GPU is at
    hand. Raises :class:`ModelError` when nothing is trainable.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError("model.build: found no trainable parameters, expected at least one")
    groups = _parameter_groups(model, section, lr_of or (lambda _: 1.0))
    return OPTIMIZERS[section.name](groups, section, True if fused else None)


def _parameter_groups(model: nn.Module, section: Optimizer, lr_of: Callable[[str], float]) -> Groups:
    """One group for each way in which parameters are trained, in the order in which the model names them."""
    decayed = set(map(id, model.parameters() if section.decay_all else split_by_decay(model)[0]))
    orthogonal = set(map(id, hidden_matrices(model) if isinstance(section, Muon) else ()))
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        weight_decay, by_muon = section.weight_decay if id(parameter) in decayed else 0.0, id(parameter) in orthogonal
        lr_factor = float(lr_of(name))
        if isinstance(section, Muon) and not by_muon:
            lr_factor *= section.adamw_lr / section.lr
        settings = {"weight_decay": weight_decay, "lr_factor": lr_factor, "lr": section.lr * lr_factor}
        if isinstance(section, Muon):
            settings["orthogonal"] = by_muon
        group = groups.setdefault((weight_decay, lr_factor, by_muon), {"params": [], **settings})
        group["params"].append(parameter)
    return list(groups.values())


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
