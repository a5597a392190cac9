"""One fully decided configuration of a trial: what ``study.yaml`` says with every range decided.

Frozen, strict, and documented where each field is defined: the JSON Schema and docs/recipe.md are made from here. Loads
no torch, so that a study is checked in milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from trials.recipe.augment import (
    Affine,
    Augment,
    BackTranslation,
    ColorJitter,
    CustomAugment,
    Erasing,
    HorizontalFlip,
    ImageAugment,
    RandAugment,
    RandomCrop,
    RandomDeletion,
    RandomInsertion,
    RandomResizedCrop,
    RandomSwap,
    Rotation,
    SynonymReplacement,
    TextAugment,
    TrivialAugment,
    VerticalFlip,
)
from trials.recipe.data import Data, Task
from trials.recipe.loss import Bce, CrossEntropy, Focal, Huber, Loss, Mse
from trials.recipe.made_from import (
    Assembly,
    GreedyEnsemble,
    GreedySoup,
    KeptWeights,
    Member,
    Start,
    Teacher,
    TopEnsemble,
    UniformSoup,
)
from trials.recipe.model import (
    Imported,
    Init,
    Linear,
    Mlp,
    Model,
    Norm,
    Pretrained,
    SmallConvnet,
    SmallResnet,
    TextBag,
    TextGru,
    TextTransformer,
)
from trials.recipe.optimizer import Adagrad, Adam, AdamW, Muon, NAdam, Optimizer, RAdam, RmsProp, Sgd
from trials.recipe.schedule import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Extension,
    MultiStep,
    OneCycle,
    Part,
    Polynomial,
    Schedule,
    Sequence,
    Step,
)
from trials.recipe.section import Count, Fraction, ImportPath, NotNegative, OpenFraction, Positive, Section
from trials.recipe.train import Average, EarlyStop, Ema, LrFinder, Swa, Train
from trials.result import Metric

DEFAULT_METRICS: dict[str, Metric] = {"classification": "validation.accuracy", "regression": "validation.loss"}
"""What "better" means where nothing is said, by task."""


class Recipe(Section):
    """All that decides a trial's weights, given the data."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random in the trial; in a study, derived from the study's seed and the trial's number."""
    metric: Metric = "validation.accuracy"
    """What "better" means: for early stopping, the best epochs and the leaderboard."""
    data: Data
    model: Model
    train: Train = Train()
    average: Average = Average()
    extensions: Annotated[tuple[Extension, ...], Field(strict=False)] = ()
    """What was added after the trial had finished, by `sweeper extend`; not a key of study.yaml."""
    start: Start | None = None
    """Weights to begin from, such as those of a trunk; not a key of study.yaml."""
    teacher: Teacher | None = None
    """An ensemble to learn from, beside the labels; not a key of study.yaml."""
    assembly: Assembly | None = None
    """What is made of other trials' weights in place of a training; not a key of study.yaml."""

    @model_validator(mode="before")
    @classmethod
    def _metric_of_task(cls, content: Any) -> Any:
        """Where nothing is said, a number is judged by its loss: it has no accuracy."""
        if isinstance(content, dict) and isinstance(content.get("data"), dict) and "metric" not in content:
            metric = DEFAULT_METRICS.get(content["data"].get("task", "classification"))
            return content if metric is None else {**content, "metric": metric}
        return content

    @property
    def epochs(self) -> int:
        """All epochs the trial is to train, extensions included."""
        last = self.extensions[-1] if self.extensions else None
        return self.train.epochs if last is None else last.after_epochs + last.epochs

    @property
    def makes_ensemble(self) -> bool:
        """Whether the trial leaves several models in one file."""
        return isinstance(self.assembly, TopEnsemble | GreedyEnsemble)

    @property
    def output_loss(self) -> Loss | None:
        """The loss by which the outputs of what the trial leaves are read.

        None for an ensemble: each member's loss is applied within it, and log-probabilities come out.
        """
        return None if self.makes_ensemble else self.train.loss


__all__ = [
    "DEFAULT_METRICS",
    "Adagrad",
    "Adam",
    "AdamW",
    "Affine",
    "Assembly",
    "Augment",
    "Average",
    "BackTranslation",
    "Bce",
    "ColorJitter",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Count",
    "CrossEntropy",
    "CustomAugment",
    "Cyclic",
    "Data",
    "EarlyStop",
    "Ema",
    "Erasing",
    "Exponential",
    "Extension",
    "Focal",
    "Fraction",
    "GreedyEnsemble",
    "GreedySoup",
    "HorizontalFlip",
    "Huber",
    "ImageAugment",
    "ImportPath",
    "Imported",
    "Init",
    "KeptWeights",
    "Linear",
    "Loss",
    "LrFinder",
    "Member",
    "Mlp",
    "Model",
    "Mse",
    "MultiStep",
    "Muon",
    "NAdam",
    "Norm",
    "NotNegative",
    "OneCycle",
    "OpenFraction",
    "Optimizer",
    "Part",
    "Polynomial",
    "Positive",
    "Pretrained",
    "RAdam",
    "RandAugment",
    "RandomCrop",
    "RandomDeletion",
    "RandomInsertion",
    "RandomResizedCrop",
    "RandomSwap",
    "Recipe",
    "RmsProp",
    "Rotation",
    "Schedule",
    "Section",
    "Sequence",
    "Sgd",
    "SmallConvnet",
    "SmallResnet",
    "Start",
    "Step",
    "Swa",
    "SynonymReplacement",
    "Task",
    "Teacher",
    "TextAugment",
    "TextBag",
    "TextGru",
    "TextTransformer",
    "TopEnsemble",
    "Train",
    "TrivialAugment",
    "UniformSoup",
    "VerticalFlip",
]
