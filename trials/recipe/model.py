"""What is trained: small built-ins for images, features and text, or any importable factory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from trials.recipe.section import BelowOne, Count, ImportPath, Positive, Section

Init = Literal[
    "default",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "lecun_normal",
    "orthogonal",
]
Norm = Literal["batch", "layer", "group", "none"]
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth")


class Pretrained(Section):
    """Start from weights that have been trained before."""

    weights: str
    """A name of torchvision's weights (`DEFAULT`, `IMAGENET1K_V1`), a `.safetensors`, `.pt` or `.pth` file, a folder
    that `sweeper pull` wrote (with a `/`, as in `./best`), or `models:/NAME@ALIAS` from MLflow. A head of another size
    is replaced by a fresh one. [torchvision.models]"""
    head: str | None = None
    """Name of the module that makes the outputs, such as `classifier.1` or `fc`. Left out, it is the last linear layer.
    [sweeper]"""
    freeze: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Stages that are not trained, by the beginning of their names (`features.0`), or `body` for all but the head.
    Their batch norm statistics stay too. [arXiv:1411.1792]"""
    unfreeze_after_epochs: Count | None = None
    """Epochs after which frozen stages are trained too. Left out, they stay frozen. [arXiv:1801.06146]"""
    body_lr: Positive = 1.0
    """Learning rate of all but the head, as a multiple of the optimizer's. Below 1, what was learned before changes
    more slowly than the fresh head. [arXiv:1801.06146]"""
    normalisation: Literal["weights", "data"] = "weights"
    """Normalise images by the numbers with which the weights were trained, or by those of the training split. Weights
    that bring no such numbers use the training split's. [torchvision.models]"""


def is_weights_path(weights: str) -> bool:
    """Whether ``weights`` is a file or folder, not a name of torchvision's or MLflow's.

    >>> [is_weights_path(weights) for weights in ("DEFAULT", "models:/digits@best", "best.pth", "./best")]
    [False, False, True, True]
    """
    return not weights.startswith("models:/") and ("/" in weights or weights.endswith(WEIGHTS_SUFFIXES))


class _Network(Section):
    """What every model has."""

    init: Init = "default"
    """How weights begin. `default` is the built-in's own start (Kaiming, by fan_out in convolutions and fan_in in
    linear layers), or what an imported factory makes. [torch.nn.init; arXiv:1502.01852]"""
    pretrained: Pretrained | None = None
    """Start from trained weights instead. What does not fit is named. [sweeper]"""


class Linear(_Network):
    """Linear or logistic regression on the flattened input."""

    build: Literal["linear"]
    """One linear layer. It shows what the data gives away without any depth. [sweeper]"""


class Mlp(_Network):
    """Fully connected layers with ReLU."""

    build: Literal["mlp"]
    """A multi-layer perceptron on the flattened input. It is the model for tables. [sweeper]"""
    width: Count = 128
    """Units in each hidden layer. Cost grows with its square. [sweeper]"""
    depth: Count = 2
    """Hidden layers. Each is linear, norm, ReLU, dropout. [sweeper]"""
    norm: Norm = "none"
    """Normalisation after each hidden layer. `group` uses 8 groups, or as many as divide the width.
    [arXiv:1502.03167; arXiv:1607.06450; arXiv:1803.08494]"""
    dropout: BelowOne = 0.0
    """Share of the units dropped after each hidden layer while training. [arXiv:1207.0580]"""
    input_dropout: BelowOne = 0.0
    """Share of the inputs dropped while training. [arXiv:1207.0580]"""


class _ImageNetwork(_Network):
    """What the built-ins for images have."""

    norm: Norm = "batch"
    """Normalisation after each convolution. `layer` is over all channels of an image, `group` over 8 groups of them, or
    as many as divide the width. [arXiv:1502.03167; arXiv:1607.06450; arXiv:1803.08494]"""
    dropout: BelowOne = 0.0
    """Share of the features dropped before the head while training. [arXiv:1207.0580]"""
    spatial_dropout: BelowOne = 0.0
    """Share of the channels dropped as whole maps after each stage while training. [arXiv:1411.4280]"""


class SmallConvnet(_ImageNetwork):
    """Stages of convolution, norm, ReLU and pooling for small images."""

    build: Literal["small_convnet"]
    """A plain convolutional network, for images of 8 to 64 pixels. The head sees each channel's mean. [sweeper]"""
    width: Count = 32
    """Channels of the first stage; each later stage doubles them. [sweeper]"""
    depth: Count = 2
    """Stages; each but the first halves the image. [sweeper]"""


class SmallResnet(_ImageNetwork):
    """The CIFAR ResNet: 6n+2 layers in three stages."""

    build: Literal["small_resnet"]
    """A residual network for images of 8 to 64 pixels. [arXiv:1512.03385, section 4.2]"""
    width: Count = 16
    """Channels of the first stage; the other two have twice and four times as many. [arXiv:1512.03385, section 4.2]"""
    blocks: Count = 1
    """Residual blocks in each of the three stages (n of the paper; 3 gives ResNet-20). [arXiv:1512.03385]"""
    zero_init_residual: bool = True
    """Start the last norm of each residual block at 0, so that each block starts as its shortcut. [arXiv:1706.02677]"""


class TextBag(_Network):
    """The mean of word embeddings and a linear layer."""

    build: Literal["text_bag"]
    """Embed words and classify their mean, whatever their order: fastText without n-grams. It trains in seconds, and a
    model that reads in order should be better. [arXiv:1607.01759]"""
    width: Count = 32
    """Size of a word's embedding. [arXiv:1607.01759, where it is 10]"""
    embedding_dropout: BelowOne = 0.0
    """Share of the words whose embedding is dropped while training. [arXiv:1512.05287]"""
    dropout: BelowOne = 0.0
    """Share of the features dropped before the head while training. [arXiv:1207.0580]"""


class TextGru(_Network):
    """Word embeddings and a gated recurrent unit."""

    build: Literal["text_gru"]
    """Embed words, read them with a GRU, and classify the mean of its outputs. Padding is left out.
    [arXiv:1406.1078]"""
    width: Count = 64
    """Size of a word's embedding. [sweeper]"""
    hidden: Count = 64
    """Units of the GRU in each direction. [arXiv:1406.1078]"""
    depth: Count = 1
    """Layers of the GRU. [arXiv:1406.1078]"""
    bidirectional: bool = True
    """Read the text in both directions. [sweeper]"""
    embedding_dropout: BelowOne = 0.0
    """Share of the words whose embedding is dropped while training. [arXiv:1512.05287]"""
    dropout: BelowOne = 0.0
    """Share of the features dropped before the head, and between layers, while training. [arXiv:1207.0580]"""


class TextTransformer(_Network):
    """Word embeddings and a Transformer encoder."""

    build: Literal["text_transformer"]
    """Embed words and their places, read them with a Transformer encoder, and classify the mean. The norm comes before
    each part (pre-LN). [arXiv:1706.03762; arXiv:2002.04745]"""
    width: Count = 64
    """Size of a word's embedding and of each layer; a multiple of `heads`. [arXiv:1706.03762]"""
    depth: Count = 2
    """Layers of the encoder. [arXiv:1706.03762]"""
    heads: Count = 4
    """Heads of the attention. [arXiv:1706.03762]"""
    feed_forward: Count = 2
    """Size of the feed-forward part, as a multiple of `width`. [arXiv:1706.03762, where it is 4]"""
    embedding_dropout: BelowOne = 0.0
    """Share of the words whose embedding is dropped while training. [arXiv:1512.05287]"""
    dropout: BelowOne = 0.1
    """Share dropped inside each layer and before the head while training. [arXiv:1706.03762]"""


class Imported(_Network):
    """Any importable factory that returns a `torch.nn.Module` with one output per class, or one for a number."""

    build: ImportPath
    """`module:function`, such as `torchvision.models:resnet18`; it is given `num_classes` if it takes it. [sweeper]"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the factory. Ranges may stand in them. [sweeper]"""


def _model_tag(value: Any) -> str:
    build = value.get("build") if isinstance(value, dict) else getattr(value, "build", None)
    return "imported" if isinstance(build, str) and ":" in build else str(build)


Model = Annotated[
    Annotated[Linear, Tag("linear")]
    | Annotated[Mlp, Tag("mlp")]
    | Annotated[SmallConvnet, Tag("small_convnet")]
    | Annotated[SmallResnet, Tag("small_resnet")]
    | Annotated[TextBag, Tag("text_bag")]
    | Annotated[TextGru, Tag("text_gru")]
    | Annotated[TextTransformer, Tag("text_transformer")]
    | Annotated[Imported, Tag("imported")],
    Discriminator(_model_tag),
]
