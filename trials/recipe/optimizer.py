"""Update rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trials.recipe.section import BelowOne, NotNegative, OpenFraction, Positive, Section


class _Optimizer(Section):
    """What every optimizer has."""

    weight_decay: NotNegative = 0.0
    """L2 penalty, added to the gradient. On weights (embeddings too) only, unless `decay_all`.
    [arXiv:1812.01187, section 3.1]"""
    decay_all: bool = False
    """Let biases and norm parameters decay too. Off, only weights do, which is nearly always better.
    [arXiv:1812.01187, section 3.1]"""


class Sgd(_Optimizer):
    """Stochastic gradient descent, with momentum when asked for."""

    name: Literal["sgd"]
    """Gradient descent with momentum. [torch.optim.SGD]"""
    lr: Positive
    """Learning rate at the top of the schedule. [torch.optim.SGD]"""
    momentum: BelowOne = 0.9
    """Share of the last update that is kept in the next. [torch.optim.SGD]"""
    nesterov: bool = False
    """Look ahead along the momentum; needs momentum above 0. [torch.optim.SGD]"""


class Adam(_Optimizer):
    """Adam; the default, at 3e-4."""

    name: Literal["adam"]
    """Adam: steps scaled by running means of the gradient and its square. [arXiv:1412.6980; torch.optim.Adam]"""
    lr: Positive = 3e-4
    """Learning rate at the top of the schedule. [torch.optim.Adam]"""
    beta1: OpenFraction = 0.9
    """Decay of the mean of gradients. [arXiv:1412.6980]"""
    beta2: OpenFraction = 0.999
    """Decay of the mean of squared gradients. [arXiv:1412.6980]"""
    eps: Positive = 1e-8
    """Added to the denominator. [arXiv:1412.6980]"""


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]  # type: ignore[assignment]
    """Adam whose weight decay is not scaled with the gradient. [arXiv:1711.05101; torch.optim.AdamW]"""
    weight_decay: NotNegative = 0.01
    """Decoupled decay. On weights only, unless `decay_all`. [arXiv:1711.05101]"""


class NAdam(Adam):
    """Adam with Nesterov momentum."""

    name: Literal["nadam"]  # type: ignore[assignment]
    """Adam that looks ahead along its momentum. [Dozat, ICLR workshop 2016; torch.optim.NAdam]"""


class RAdam(Adam):
    """Adam with a rectified start."""

    name: Literal["radam"]  # type: ignore[assignment]
    """Adam that warms up by itself, by the variance of its step size. [arXiv:1908.03265; torch.optim.RAdam]"""


class RmsProp(_Optimizer):
    """Steps scaled by a running mean of squared gradients."""

    name: Literal["rmsprop"]
    """RMSprop: steps scaled by a running mean of squared gradients. [Hinton, lecture 6e, 2012; torch.optim.RMSprop]"""
    lr: Positive = 1e-3
    """Learning rate at the top of the schedule. [torch.optim.RMSprop]"""
    alpha: OpenFraction = 0.99
    """Decay of the mean of squared gradients. [torch.optim.RMSprop]"""
    momentum: BelowOne = 0.0
    """Share of the last update that is kept in the next. [torch.optim.RMSprop]"""
    eps: Positive = 1e-8
    """Added to the denominator. [torch.optim.RMSprop]"""


class Adagrad(_Optimizer):
    """Steps scaled by the sum of all squared gradients so far."""

    name: Literal["adagrad"]
    """Adagrad. It suits sparse features. [Duchi, Hazan and Singer, JMLR 12, 2011; torch.optim.Adagrad]"""
    lr: Positive = 1e-2
    """Learning rate at the top of the schedule. [torch.optim.Adagrad]"""
    eps: Positive = 1e-10
    """Added to the denominator. [torch.optim.Adagrad]"""


class Muon(_Optimizer):
    """Momentum, orthogonalised, for the matrices inside the network; AdamW for everything else."""

    name: Literal["muon"]
    """Muon for matrices and convolutions but the first layer, the head and embeddings; AdamW for these and for vectors.
    What has no layer between the first and the head is trained by AdamW alone.
    [https://kellerjordan.github.io/posts/muon/; arXiv:2502.16982; torch.optim.Muon]"""
    lr: Positive = 0.02
    """Learning rate of the matrices at the top of the schedule. [torch.optim.Muon]"""
    momentum: BelowOne = 0.95
    """Share of the last update that is kept in the next; the momentum is Nesterov's. [torch.optim.Muon]"""
    orthogonal_steps: Annotated[int, Field(ge=1, lt=100)] = 5
    """Newton-Schulz steps that orthogonalise an update. [torch.optim.Muon]"""
    weight_decay: NotNegative = 0.1
    """Decoupled decay. On weights only, unless `decay_all`. [arXiv:2502.16982]"""
    adamw_lr: Positive = 3e-4
    """Learning rate, at the top of the schedule, of what AdamW trains. [arXiv:2502.16982]"""


Optimizer = Annotated[
    Sgd | Adam | AdamW | NAdam | RAdam | RmsProp | Adagrad | Muon,
    Field(discriminator="name"),
]
