"""From a recipe's model section to a module that is known to fit the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trials.errors import ModelError
from trials.locate import locate, one_line
from trials.model.blocks import ConvNet, LinearClassifier, MlpClassifier, ResNet
from trials.recipe import Imported, Linear, Mlp, Model, SmallConvnet, SmallResnet


def build_model(model: Model, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The module that ``model`` describes, in training mode, on the host.

    ``input_shape`` is (C, H, W) or (F,). Initial weights are drawn from the global generator, which the caller seeds.
    Raises ``ModelError`` in one line: the factory cannot be imported or called, or what it makes does not turn
    (2, *input_shape) into (2, classes).
    """
    build = "imported" if isinstance(model, Imported) else model.build
    module = BUILDERS[build](model, input_shape, classes)
    _try_forward(module, model.build, input_shape, classes)
    return module.train()


def _build_linear(_model: Linear, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return LinearClassifier(input_shape, classes)


def _build_mlp(model: Mlp, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return MlpClassifier(input_shape, classes, model.width, model.depth, model.dropout)


def _build_small_convnet(model: SmallConvnet, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, side = _image(model.build, input_shape)
    if side >> (model.depth - 1) == 0:
        raise ModelError(
            f"model.depth: {model.depth} stages halve images of {side} pixels to nothing; "
            f"expected at most {side.bit_length()}"
        )
    return ConvNet(channels, classes, model.width, model.depth, model.dropout)


def _build_small_resnet(model: SmallResnet, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, _ = _image(model.build, input_shape)
    return ResNet(channels, classes, model.width, model.blocks, model.dropout)


def _image(name: str, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Channels and the shorter side."""
    if len(input_shape) != 3:
        raise ModelError(f"model.build: {name} needs images, but the data has {input_shape[0]} features; use mlp")
    return input_shape[0], min(input_shape[1:])


def _build_imported(model: Imported, _input_shape: tuple[int, ...], classes: int) -> nn.Module:
    try:
        factory = locate(model.build)
    except ImportError as error:
        raise ModelError(f"model.build: {error}") from error
    try:
        module = factory(**_with_num_classes(factory, model.arguments, classes))
    except Exception as error:
        raise ModelError(f"{model.build}: raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{model.build}: returned {type(module).__name__}, expected a torch.nn.Module")
    return module


def _with_num_classes(factory: Callable[..., Any], arguments: dict[str, Any], classes: int) -> dict[str, Any]:
    """The user's arguments, and ``num_classes`` before them if the factory takes it."""
    parameters = inspect.signature(factory).parameters
    takes = "num_classes" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {"num_classes": classes, **arguments} if takes else dict(arguments)


def _try_forward(module: nn.Module, name: str, input_shape: tuple[int, ...], classes: int) -> None:
    """One pass in eval mode, which leaves batch norm statistics alone."""
    module.eval()
    try:
        with torch.no_grad():
            output = module(torch.zeros(2, *input_shape))
    except Exception as error:
        raise ModelError(f"{name}: fails on an input of shape {input_shape}: {one_line(error)}") from error
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, classes):
        raise ModelError(f"{name}: gave {found} for 2 examples, expected (2, {classes}), one output per class")


BUILDERS: dict[str, Callable[[Any, tuple[int, ...], int], nn.Module]] = {
    "linear": _build_linear,
    "mlp": _build_mlp,
    "small_convnet": _build_small_convnet,
    "small_resnet": _build_small_resnet,
    "imported": _build_imported,
}
