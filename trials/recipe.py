"""One fully decided configuration of a trial: what ``study.yaml`` says with every range decided.

Frozen, strict, and documented where each field is defined: the JSON Schema and the reference are made from here.
Loads no torch, so that a study is checked in milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]


class Section(BaseModel):
    """A part of a recipe: frozen, no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Data(Section):
    """Where the examples come from and how they are split and varied."""

    source: str
    """`digits`, `npz:PATH`, `folder:PATH`, a torchvision data set (`torchvision.datasets:CIFAR10`) or any
    `module:function` that returns a `trials.data.Source`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for a `module:function` or torchvision source."""
    validation: OpenFraction = 0.1
    """Share of the training examples held out as the selection split, on which choices are made."""
    test: OpenFraction = 0.2
    """Share of all examples held out as the test split when the source has none of its own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the splits: the same for all trials of a study, or their scores could not be compared."""
    train_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the training split that is used; the selection and test splits stay whole."""
    image_size: Count | None = None
    """Side in pixels to which images are resized; needed when the images of a folder differ in size."""
    augment: Annotated[tuple[Literal["random_crop", "horizontal_flip"], ...], Field(strict=False)] = ()
    """Random changes to each training image, drawn anew per example and epoch."""
    crop_padding: Count = 4
    """Pixels of padding on each side before `random_crop` cuts the original size out again."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Blend pairs of training examples and their labels: mixup (arXiv:1710.09412), cutmix (arXiv:1905.04899)."""
    mix_alpha: Positive = 1.0
    """The blend ratio is drawn from Beta(mix_alpha, mix_alpha)."""


class Linear(Section):
    """Multinomial logistic regression on the flattened input."""

    build: Literal["linear"]
    """One linear layer."""


class Mlp(Section):
    """Fully connected layers with ReLU."""

    build: Literal["mlp"]
    """A multi-layer perceptron on the flattened input."""
    width: Count = 128
    """Units in each hidden layer."""
    depth: Count = 2
    """Hidden layers."""
    dropout: Fraction = 0.0
    """Share of the units dropped after each hidden layer while training."""


class SmallConvnet(Section):
    """Stages of convolution, batch norm, ReLU and pooling for small images."""

    build: Literal["small_convnet"]
    """A plain convolutional network, for images of 8 to 64 pixels."""
    width: Count = 32
    """Channels of the first stage; each later stage doubles them."""
    depth: Count = 2
    """Stages; each but the first halves the image."""
    dropout: Fraction = 0.0
    """Share of the features dropped before the head while training."""


class SmallResnet(Section):
    """The CIFAR ResNet (arXiv:1512.03385, section 4.2): 6n+2 layers in three stages."""

    build: Literal["small_resnet"]
    """A residual network for images of 8 to 64 pixels."""
    width: Count = 16
    """Channels of the first stage; the other two have twice and four times as many."""
    blocks: Count = 1
    """Residual blocks in each of the three stages (n of the paper; 3 gives ResNet-20)."""
    dropout: Fraction = 0.0
    """Share of the features dropped before the head while training."""


class Imported(Section):
    """Any importable factory that returns a `torch.nn.Module` with one output per class."""

    build: ImportPath
    """`module:function`, such as `torchvision.models:resnet18`; it is given `num_classes` if it takes it."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the factory."""


def _model_tag(value: Any) -> str:
    build = value.get("build") if isinstance(value, dict) else getattr(value, "build", None)
    return "imported" if isinstance(build, str) and ":" in build else str(build)


Model = Annotated[
    Annotated[Linear, Tag("linear")]
    | Annotated[Mlp, Tag("mlp")]
    | Annotated[SmallConvnet, Tag("small_convnet")]
    | Annotated[SmallResnet, Tag("small_resnet")]
    | Annotated[Imported, Tag("imported")],
    Discriminator(_model_tag),
]


class Sgd(Section):
    """Stochastic gradient descent, with momentum when asked for."""

    name: Literal["sgd"]
    """`torch.optim.SGD`."""
    lr: Positive
    """Learning rate at the top of the schedule."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Share of the last update that is kept in the next."""
    nesterov: bool = False
    """Look ahead along the momentum; needs momentum above 0."""
    weight_decay: NotNegative = 0.0
    """L2 penalty, on weights only: never on biases and norm parameters."""


class Adam(Section):
    """Adam (arXiv:1412.6980); the default, at 3e-4."""

    name: Literal["adam"]
    """`torch.optim.Adam`."""
    lr: Positive = 3e-4
    """Learning rate at the top of the schedule."""
    beta1: OpenFraction = 0.9
    """Decay of the mean of gradients."""
    beta2: OpenFraction = 0.999
    """Decay of the mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NotNegative = 0.0
    """L2 penalty, on weights only: never on biases and norm parameters."""


class AdamW(Adam):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    name: Literal["adamw"]  # type: ignore[assignment]
    """`torch.optim.AdamW`."""
    weight_decay: NotNegative = 0.01
    """Decoupled decay, on weights only: never on biases and norm parameters."""


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]


class Constant(Section):
    """The same learning rate throughout, after an optional linear warm-up."""

    name: Literal["constant"]
    """No decay."""
    warmup: Fraction = 0.0
    """Share of all steps over which the learning rate rises linearly from 0."""


class Cosine(Section):
    """Half a cosine from the top to `final` (arXiv:1608.03983, without restarts)."""

    name: Literal["cosine"]
    """Cosine annealing."""
    warmup: Fraction = 0.0
    """Share of all steps over which the learning rate rises linearly from 0."""
    final: Fraction = 0.0
    """Learning rate at the end, as a share of the top."""


class OneCycle(Section):
    """Up, then down far below the start (arXiv:1708.07120), by cosines, as `torch.optim.lr_scheduler.OneCycleLR`."""

    name: Literal["one_cycle"]
    """One-cycle, stepped per update."""
    warmup: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of all steps spent rising."""
    start: Annotated[float, Field(gt=0.0, le=1.0)] = 0.04
    """Learning rate at the start, as a share of the top."""
    final: Fraction = 4e-6
    """Learning rate at the end, as a share of the top."""


Schedule = Annotated[Constant | Cosine | OneCycle, Field(discriminator="name")]


class Ema(Section):
    """Exponential moving average of the weights, evaluated beside them."""

    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """Share of the average that is kept at each step."""
    warmup: bool = True
    """Use min(decay, (1 + n) / (10 + n)) at step n, so that the random start is forgotten soon."""


class EarlyStop(Section):
    """Stop when the recipe's metric no longer gets better, and go back to the best weights."""

    patience_epochs: Count = 5
    """Epochs without a better value before training stops."""
    min_delta: NotNegative = 0.0
    """How much better a value must be to count."""


class Train(Section):
    """How the model is fitted."""

    epochs: Count = 10
    """Passes over the training split."""
    batch_size: Count = 128
    """Examples in each forward pass."""
    accumulate: Count = 1
    """Batches whose gradients are gathered before each update: the gradient of an `accumulate` times larger batch."""
    optimizer: Optimizer = Adam(name="adam")
    """The update rule."""
    schedule: Schedule = Constant(name="constant")
    """The learning rate over the steps of the whole training."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; fp16 scales the loss and skips updates that overflow."""
    clip_norm: Positive | None = None
    """Largest allowed norm of the whole gradient, after unscaling."""
    clip_value: Positive | None = None
    """Largest allowed magnitude of each gradient entry, after unscaling."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the target spread evenly over all classes (arXiv:1512.00567)."""
    ema: Ema | None = None
    """Keep an exponential moving average of the weights."""
    early_stop: EarlyStop | None = None
    """Stop when nothing gets better."""


class Average(Section):
    """What is averaged at the end of a trial."""

    best_n: Annotated[int, Field(ge=0)] = 0
    """Average the raw weights of this many best epochs; 0 or 1 averages nothing. Kept only if not worse."""
    batch_norm_samples: Count = 2048
    """Training examples over which batch norm statistics are measured anew after averaging (arXiv:2105.07576)."""


class Recipe(Section):
    """All that decides a trial's weights, given the data."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random in the trial; in a study, derived from the study's seed and the trial's number."""
    metric: Literal["validation.accuracy", "validation.loss"] = "validation.accuracy"
    """What "better" means: for early stopping, the best epochs and the leaderboard."""
    data: Data
    model: Model
    train: Train = Train()
    average: Average = Average()
