"""Where examples come from, how they are split and varied."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trials.recipe.augment import Augment
from trials.recipe.section import BelowOne, Count, OpenFraction, Positive, PositiveFraction, Section, WholeNumber

Task = Literal["classification", "regression"]


class Data(Section):
    """Where the examples come from and how they are split and varied."""

    source: str
    """`digits`, `npz:PATH`, `folder:PATH`, `csv:PATH`, `parquet:PATH`, a torchvision data set
    (`torchvision.datasets:CIFAR10`) or any `module:function` that returns a `trials.data.Source`. Relative paths are
    taken from the study file's folder. [sweeper]"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for a `module:function` or torchvision source. Other sources take none. [sweeper]"""
    task: Task = "classification"
    """What is predicted: one of several classes, or a number. It decides the loss, the metrics and the size of the
    model's output. [sweeper]"""
    target: str | None = None
    """The column of a table that is predicted. Needed with `csv:` and `parquet:`. [sweeper]"""
    text: str | None = None
    """The column of a table that holds texts, which makes the study one of text. Left out, all columns but the target
    are features. [sweeper]"""
    drop: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Columns of a table that are left out. Say here what would give the answer away, such as an identifier.
    [sweeper]"""
    categorical: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Columns whose numbers are names, such as a postal code. Columns of text are treated so anyway. [sweeper]"""
    vocabulary_size: Annotated[int, Field(ge=3)] = 20_000
    """Words that a text model knows: the most frequent ones of the training split. All others are one unknown word.
    [arXiv:1408.5882]"""
    max_tokens: Count = 200
    """Words of each text that are read. Longer texts lose their end, shorter ones are padded. [sweeper]"""
    validation: OpenFraction = 0.1
    """Share of the training examples held out as the selection split, on which choices are made. Classes keep their
    shares in it. [sweeper]"""
    confirm: BelowOne = 0.0
    """Share of the selection split that is set aside before any choice is made, to confirm the choices of `finish` on.
    Left out, it is 0.5 in a study with `finish`, and 0 without. [Cawley and Talbot, JMLR 11, 2010]"""
    test: OpenFraction = 0.2
    """Share of all examples held out as the test split when the source has none of its own. It is looked at once, by
    the winner. [sweeper]"""
    seed: WholeNumber = 0
    """Seed of the splits. It is the same for all trials of a study, or their scores could not be compared. [sweeper]"""
    train_fraction: PositiveFraction = 1.0
    """Share of the training split that is used; the selection and test splits stay whole. A range over it draws a
    learning curve. [sweeper]"""
    image_size: Count | None = None
    """Side in pixels to which images are resized, by bilinear interpolation with antialiasing. Needed when the images
    of a folder differ in size. [torch.nn.functional.interpolate]"""
    augment: Annotated[tuple[Augment, ...], Field(strict=False)] = ()
    """Random changes to each training example, in this order, drawn anew per example and epoch. A bare name takes its
    defaults. [sweeper]"""
    mix: Literal["none", "mixup", "cutmix", "mixup_or_cutmix"] = "none"
    """Blend pairs of training examples and their labels. `mixup_or_cutmix` draws one of the two for each batch.
    [arXiv:1710.09412; arXiv:1905.04899]"""
    mix_alpha: Positive = 1.0
    """The blend ratio is drawn from Beta(mix_alpha, mix_alpha). Small values blend little, 1 evenly.
    [arXiv:1710.09412]"""
    resident: Literal["auto", "device", "host"] = "auto"
    """Where the examples wait: on the GPU, or in the host's memory from which each batch is copied through pinned
    memory. `auto` takes the GPU when they fill less than 40 % of its free memory. [sweeper]"""
