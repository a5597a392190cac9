"""The learning rate over a training, in shares of all its steps: functions of progress, whatever the data's size."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trials.recipe.section import Count, Fraction, OpenFraction, Positive, PositiveFraction, Section


class _Schedule(Section):
    """What nearly every schedule has."""

    warmup: Fraction = 0.0
    """Share of all steps over which the learning rate first rises linearly from 0. The schedule itself then takes the
    steps that are left. [arXiv:1706.02677]"""


class Constant(_Schedule):
    """The same learning rate throughout, after an optional linear warm-up."""

    name: Literal["constant"]
    """No decay; the default. [sweeper]"""


class Step(_Schedule):
    """Down by a factor at regular distances."""

    name: Literal["step"]
    """Multiply by `gamma` each time another share `every` of the steps has passed. [torch.optim.lr_scheduler.StepLR]"""
    every: PositiveFraction = 1 / 3
    """Distance between two drops, as a share of the steps: 30 of 90 epochs are a third. Each drop comes at the nearest
    whole step. [torch.optim.lr_scheduler.StepLR]"""
    gamma: OpenFraction = 0.1
    """Factor of each drop. [torch.optim.lr_scheduler.StepLR]"""


class MultiStep(_Schedule):
    """Down by a factor at chosen places."""

    name: Literal["multi_step"]
    """Multiply by `gamma` at each of the places in `at`. [torch.optim.lr_scheduler.MultiStepLR]"""
    at: Annotated[tuple[OpenFraction, ...], Field(strict=False, min_length=1)] = (0.5, 0.75)
    """Places of the drops, as shares of the steps. [arXiv:1512.03385, section 4.2]"""
    gamma: OpenFraction = 0.1
    """Factor of each drop. [torch.optim.lr_scheduler.MultiStepLR]"""


class Exponential(_Schedule):
    """Down by the same factor at each step."""

    name: Literal["exponential"]
    """An even fall in the logarithm, from the top to `final`. [torch.optim.lr_scheduler.ExponentialLR]"""
    final: OpenFraction = 0.01
    """Learning rate at the end, as a share of the top. [torch.optim.lr_scheduler.ExponentialLR]"""


class Cyclic(_Schedule):
    """Up and down in triangles."""

    name: Literal["cyclic"]
    """Triangles between `low` and the top. [arXiv:1506.01186; torch.optim.lr_scheduler.CyclicLR]"""
    cycles: Count = 4
    """Triangles in the training, each of two steps at least. [arXiv:1506.01186]"""
    low: Fraction = 0.1
    """Learning rate at the feet of the triangles, as a share of the top. [arXiv:1506.01186]"""
    halve: bool = False
    """Halve the height of each triangle (`triangular2`). [arXiv:1506.01186]"""


class Cosine(_Schedule):
    """Half a cosine from the top to `final`."""

    name: Literal["cosine"]
    """Cosine annealing, without restarts. [arXiv:1608.03983; torch.optim.lr_scheduler.CosineAnnealingLR]"""
    final: Fraction = 0.0
    """Learning rate at the end, as a share of the top. [arXiv:1608.03983]"""


class CosineRestarts(_Schedule):
    """Half cosines that begin again at the top, each longer than the one before."""

    name: Literal["cosine_restarts"]
    """Cosine annealing with warm restarts. [arXiv:1608.03983; torch.optim.lr_scheduler.CosineAnnealingWarmRestarts]"""
    first: PositiveFraction = 1 / 7
    """Length of the first cosine as a share of the steps (T_0). A seventh with `multiply: 2` makes three whole ones.
    [arXiv:1608.03983]"""
    multiply: Count = 2
    """How many times as long each next cosine is (T_mult). [arXiv:1608.03983]"""
    final: Fraction = 0.0
    """Learning rate at the end of each cosine, as a share of the top. [arXiv:1608.03983]"""


class Polynomial(_Schedule):
    """Down along a power of what is left; a straight line at power 1."""

    name: Literal["polynomial"]
    """(1 - progress) to the power `power`, from the top to `final`. [torch.optim.lr_scheduler.PolynomialLR]"""
    power: Positive = 1.0
    """Power of the fall; 1 is linear. [torch.optim.lr_scheduler.PolynomialLR]"""
    final: Fraction = 0.0
    """Learning rate at the end, as a share of the top. [torch.optim.lr_scheduler.PolynomialLR]"""


class OneCycle(Section):
    """Up, then down far below the start, by cosines."""

    name: Literal["one_cycle"]
    """One-cycle, stepped per update. [arXiv:1708.07120; torch.optim.lr_scheduler.OneCycleLR]"""
    warmup: OpenFraction = 0.3
    """Share of all steps spent rising. [arXiv:1708.07120]"""
    start: PositiveFraction = 0.04
    """Learning rate at the start, as a share of the top. [torch.optim.lr_scheduler.OneCycleLR]"""
    final: Fraction = 4e-6
    """Learning rate at the end, as a share of the top. [torch.optim.lr_scheduler.OneCycleLR]"""


SimpleSchedule = Annotated[
    Constant | Step | MultiStep | Exponential | Cyclic | Cosine | CosineRestarts | Polynomial | OneCycle,
    Field(discriminator="name"),
]


class Part(Section):
    """One schedule of a sequence."""

    share: PositiveFraction
    """Its share of the steps; shares are taken in proportion, so that they need not add up to 1. [sweeper]"""
    schedule: SimpleSchedule
    """The schedule over these steps. [sweeper]"""
    top: PositiveFraction = 1.0
    """Its top, as a share of the optimizer's learning rate. [sweeper]"""


class Sequence(Section):
    """Schedules one after another."""

    name: Literal["sequence"]
    """Several schedules, each over its share of the steps. [torch.optim.lr_scheduler.SequentialLR]"""
    parts: Annotated[tuple[Part, ...], Field(strict=False, min_length=1)]
    """The schedules in their order. [torch.optim.lr_scheduler.SequentialLR]"""


Schedule = Annotated[
    Constant | Step | MultiStep | Exponential | Cyclic | Cosine | CosineRestarts | Polynomial | OneCycle | Sequence,
    Field(discriminator="name"),
]


class Extension(Section):
    """More epochs for a trial that was finished: what `sweeper extend` adds."""

    after_epochs: Count
    """Epochs that the trial had trained when these were added. [sweeper]"""
    epochs: Count
    """Epochs added. The curve goes on where it ended. [sweeper]"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the added steps: half a cosine from `lr` to 0, or `lr` throughout. [arXiv:1608.03983]"""
    lr: PositiveFraction = 0.1
    """Learning rate at the start of the extension, as a share of the optimizer's. [sweeper]"""
