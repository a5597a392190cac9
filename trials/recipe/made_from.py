"""What a recipe begins or is made from besides its data: weights that other trials have left.

None of these is a key of study.yaml: the sweep writes them, from its catalog.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trials.recipe.section import Count, Fraction, NotNegative, Positive, PositiveFraction, Section, WholeNumber


class KeptWeights(Section):
    """A file of weights that a trial has left."""

    path: str
    """Relative to the folder of the trial that uses it, such as `../0007/weights/ema.safetensors`, or absolute."""
    sha256: str
    """Digest of the file: another one is refused."""
    name: str
    """What people call it, such as `ema of trial 0007`."""
    value: float | None = None
    """What it is worth on the study's metric, on the selection split."""


class Start(Section):
    """Weights from which a training begins, in place of random or pretrained ones."""

    weights: KeptWeights
    epochs: WholeNumber
    """Epochs that went into them."""


class Member(Section):
    """One model of an ensemble."""

    weights: KeptWeights
    recipe: dict[str, Any]
    """The recipe of the trial that left them, which says what model they are of."""
    share: PositiveFraction = 1.0
    """Its weight in the mean; shares are taken in proportion."""


class Teacher(Section):
    """An ensemble whose answers a student learns."""

    members: Annotated[tuple[Member, ...], Field(strict=False, min_length=1)]
    """Models whose probabilities (or values) are averaged."""
    temperature: Positive = 2.0
    """Softens the answers of teacher and student alike. [arXiv:1503.02531]"""
    hard_fraction: Fraction = 0.1
    """Share of the loss that is of the true labels; the rest is of the teacher's answers. [arXiv:1503.02531]"""


class UniformSoup(Section):
    """The mean of all ingredients that no barrier keeps apart."""

    name: Literal["uniform_soup"]
    ingredients: Annotated[tuple[KeptWeights, ...], Field(strict=False, min_length=2)]
    """Of models of this recipe's architecture and preprocessing; the best first."""
    barrier_tolerance: NotNegative
    """Largest barrier between two ingredients, as a share of their mean loss."""


class GreedySoup(Section):
    """Ingredients from the best down, each kept if the mean with it is not worse on the selection split.

    arXiv:2203.05482, recipe 1.
    """

    name: Literal["greedy_soup"]
    ingredients: Annotated[tuple[KeptWeights, ...], Field(strict=False, min_length=2)]
    """Of models of this recipe's architecture and preprocessing; the best first."""
    barrier_tolerance: NotNegative
    """Largest barrier between two ingredients, as a share of their mean loss."""


class TopEnsemble(Section):
    """The mean of the answers of the best so many models, as many as are best together on the selection split."""

    name: Literal["top_ensemble"]
    members: Annotated[tuple[Member, ...], Field(strict=False, min_length=2)]
    """The best first."""
    most: Count
    """At most so many."""


class GreedyEnsemble(Section):
    """Models chosen one after another, with replacement, each that with which the mean is best.

    Caruana et al., ICML 2004.
    """

    name: Literal["greedy_ensemble"]
    members: Annotated[tuple[Member, ...], Field(strict=False, min_length=2)]
    """To choose from; the best first."""
    most: Count
    """At most so many choices."""


Assembly = Annotated[UniformSoup | GreedySoup | TopEnsemble | GreedyEnsemble, Field(discriminator="name")]
"""What is made of weights in place of a training."""
