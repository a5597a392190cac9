"""From a recipe's model section to a module that is known to fit the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trials.data.preprocess import InputSpec
from trials.errors import ModelError, says_out_of_memory
from trials.locate import locate, one_line
from trials.model.convnet import ConvNet
from trials.model.init import initialise
from trials.model.mlp import LinearClassifier, MlpClassifier
from trials.model.resnet import ResNet
from trials.model.text import BagClassifier, GruClassifier, TransformerClassifier
from trials.recipe import Imported, Linear, Mlp, Model, SmallConvnet, SmallResnet, TextBag, TextGru, TextTransformer


def build_model(model: Model, spec: InputSpec, outputs: int) -> nn.Module:
    """The module that ``model`` describes with its initial weights, in training mode, on the host.

    ``outputs`` is the number of classes, or 1 for a number. Initial weights are drawn from the global generator, which
    the caller seeds; pretrained ones are loaded afterwards. Raises ``ModelError`` in one line: the model is for another
    kind of input, the factory cannot be imported or called, or what it makes does not turn (2, *spec.shape) into
    (2, outputs).
    """
    build = "imported" if isinstance(model, Imported) else model.build
    if spec.kind not in READS[build]:
        fitting = [name for name, kinds in READS.items() if spec.kind in kinds and name != "imported"]
        raise ModelError(
            f"model.build: {build} cannot read {_describe(spec)}; expected one of {', '.join(fitting)}, "
            "or a module:function"
        )
    module = BUILDERS[build](model, spec, outputs)
    _try_forward(module, model.build, spec, outputs)
    _start(module, model)
    return module.train()


def _describe(spec: InputSpec) -> str:
    if spec.kind == "image":
        return f"images of {spec.shape[1]} x {spec.shape[2]}"
    return f"texts of {spec.shape[0]} words" if spec.kind == "text" else f"{spec.shape[0]} features"


def _build_linear(_model: Linear, spec: InputSpec, outputs: int) -> nn.Module:
    return LinearClassifier(spec.shape, outputs)


def _build_mlp(model: Mlp, spec: InputSpec, outputs: int) -> nn.Module:
    return MlpClassifier(spec.shape, outputs, model.width, model.depth, model.norm, model.dropout, model.input_dropout)


def _build_small_convnet(model: SmallConvnet, spec: InputSpec, outputs: int) -> nn.Module:
    side = min(spec.shape[1:])
    if side >> (model.depth - 1) == 0:
        raise ModelError(
            f"model.depth: {model.depth} stages halve images of {side} pixels to nothing; "
            f"expected at most {side.bit_length()}"
        )
    return ConvNet(spec.shape[0], outputs, model.width, model.depth, model.norm, model.dropout, model.spatial_dropout)


def _build_small_resnet(model: SmallResnet, spec: InputSpec, outputs: int) -> nn.Module:
    return ResNet(spec.shape[0], outputs, model.width, model.blocks, model.norm, model.dropout, model.spatial_dropout)


def _build_text_bag(model: TextBag, spec: InputSpec, outputs: int) -> nn.Module:
    return BagClassifier(spec.vocabulary_size, outputs, model.width, model.embedding_dropout, model.dropout)


def _build_text_gru(model: TextGru, spec: InputSpec, outputs: int) -> nn.Module:
    return GruClassifier(
        vocabulary_size=spec.vocabulary_size,
        outputs=outputs,
        width=model.width,
        hidden=model.hidden,
        depth=model.depth,
        bidirectional=model.bidirectional,
        embedding_dropout=model.embedding_dropout,
        dropout=model.dropout,
    )


def _build_text_transformer(model: TextTransformer, spec: InputSpec, outputs: int) -> nn.Module:
    return TransformerClassifier(
        vocabulary_size=spec.vocabulary_size,
        max_tokens=spec.shape[0],
        outputs=outputs,
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        feed_forward=model.feed_forward,
        embedding_dropout=model.embedding_dropout,
        dropout=model.dropout,
    )


def _build_imported(model: Imported, _spec: InputSpec, outputs: int) -> nn.Module:
    try:
        factory = locate(model.build)
    except ImportError as error:
        raise ModelError(f"model.build: {error}") from error
    try:
        module = factory(**_with_num_classes(factory, model.arguments, outputs))
    except Exception as error:
        if says_out_of_memory(error):
            raise
        raise ModelError(f"{model.build}: raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{model.build}: returned {type(module).__name__}, expected a torch.nn.Module")
    return module


def _with_num_classes(factory: Callable[..., Any], arguments: dict[str, Any], outputs: int) -> dict[str, Any]:
    """The user's arguments, and ``num_classes`` before them if the factory takes it."""
    parameters = inspect.signature(factory).parameters
    takes = "num_classes" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {"num_classes": outputs, **arguments} if takes else dict(arguments)


def _try_forward(module: nn.Module, name: str, spec: InputSpec, outputs: int) -> None:
    """One pass in eval mode, which leaves batch norm statistics alone."""
    module.eval()
    try:
        with torch.no_grad():
            output = module(spec.example())
    except Exception as error:
        if says_out_of_memory(error):
            raise
        raise ModelError(f"{name}: fails on an input of shape {spec.shape}: {one_line(error)}") from error
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, outputs):
        raise ModelError(
            f"{name}: gave {found} for 2 examples, expected (2, {outputs}), one output per class, or one for a number"
        )


def _start(module: nn.Module, model: Model) -> None:
    """Give ``module`` its initial weights; lazy ones are there only after its first pass."""
    as_made = model.init == "default" and isinstance(model, (Linear, TextBag, TextGru, TextTransformer, Imported))
    if not as_made and not initialise(module, model.init):
        raise ModelError(
            f"model.init: {model.build} has no linear, convolutional, recurrent or attention layer for {model.init} "
            "to draw; leave it out"
        )
    if isinstance(model, SmallResnet) and model.zero_init_residual:
        assert isinstance(module, ResNet)
        module.start_as_shortcuts()


BUILDERS: dict[str, Callable[[Any, InputSpec, int], nn.Module]] = {
    "linear": _build_linear,
    "mlp": _build_mlp,
    "small_convnet": _build_small_convnet,
    "small_resnet": _build_small_resnet,
    "text_bag": _build_text_bag,
    "text_gru": _build_text_gru,
    "text_transformer": _build_text_transformer,
    "imported": _build_imported,
}

READS: dict[str, tuple[str, ...]] = {
    "linear": ("image", "features"),
    "mlp": ("image", "features"),
    "small_convnet": ("image",),
    "small_resnet": ("image",),
    "text_bag": ("text",),
    "text_gru": ("text",),
    "text_transformer": ("text",),
    "imported": ("image", "features", "text"),
}
"""The kinds of input (:class:`InputSpec`) that each model takes."""
