"""What is minimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trials.recipe.section import BelowOne, NotNegative, Positive, Section

ClassWeights = Literal["none", "balanced"] | Annotated[tuple[Positive, ...], Field(strict=False)]


class _ClassLoss(Section):
    """What the losses for classes have."""

    class_weights: ClassWeights = "none"
    """Weight of each class in the loss, in the order of the classes, or `balanced` for weights inverse to the classes'
    counts in the training split, with mean 1 over its examples. [King and Zeng, Political Analysis 9, 2001]"""


class CrossEntropy(_ClassLoss):
    """Negative log-probability of the right class."""

    name: Literal["cross_entropy"]
    """Softmax and the negative log of the right class's probability; the default for classes.
    [torch.nn.functional.cross_entropy]"""
    label_smoothing: BelowOne = 0.0
    """Share of the target spread evenly over all classes. [arXiv:1512.00567, section 7]"""


class Focal(_ClassLoss):
    """Cross entropy with less weight on what is easy."""

    name: Literal["focal"]
    """Cross entropy times (1 - p)^gamma, with p the probability of the right class. [arXiv:1708.02002]"""
    gamma: NotNegative = 2.0
    """How little easy examples count; 0 is cross entropy. [arXiv:1708.02002]"""


class Bce(_ClassLoss):
    """One yes or no for each class."""

    name: Literal["bce"]
    """A sigmoid and binary cross entropy for each class against all others, their mean. Probabilities are the
    sigmoids, scaled to a sum of 1. [torch.nn.functional.binary_cross_entropy_with_logits; arXiv:2110.00476]"""
    label_smoothing: BelowOne = 0.0
    """Share of the target spread evenly over all classes. [arXiv:2110.00476]"""


class Mse(Section):
    """Squared error."""

    name: Literal["mse"]
    """Mean squared error of the standardised target; the default for numbers. [torch.nn.functional.mse_loss]"""


class Huber(Section):
    """Squared error near zero, absolute error far out."""

    name: Literal["huber"]
    """Squared up to `delta`, linear beyond, so that outliers pull less. [torch.nn.functional.huber_loss]"""
    delta: Positive = 1.0
    """Where squared becomes linear, in standard deviations of the target. [torch.nn.functional.huber_loss]"""


Loss = Annotated[CrossEntropy | Focal | Bce | Mse | Huber, Field(discriminator="name")]
