"""From a recipe's model section to a module that is known to fit the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trials.data.preprocess import InputSpec
from trials.errors import ModelError
from trials.locate import locate, one_line
from trials.model.blocks import ConvNet, LinearClassifier, MlpClassifier, ResNet
from trials.recipe import Imported, Linear, Mlp, Model, SmallConvnet, SmallResnet


def build_model(model: Model, spec: InputSpec, outputs: int) -> nn.Module:
    """The module that ``model`` describes, in training mode, on the host.

    ``outputs`` is the number of classes, or 1 for a number. Initial weights are drawn from the global generator, which the caller seeds.
    Raises ``ModelError`` in one line: the factory cannot be imported or called, or what it makes does not turn
    (2, *spec.shape) into (2, outputs).
    """
    build = "imported" if isinstance(model, Imported) else model.build
    module = BUILDERS[build](model, spec, outputs)
    _try_forward(module, model.build, spec, outputs)
    return module.train()


def _build_linear(_model: Linear, spec: InputSpec, outputs: int) -> nn.Module:
    return LinearClassifier(spec.shape, outputs)


def _build_mlp(model: Mlp, spec: InputSpec, outputs: int) -> nn.Module:
    return MlpClassifier(spec.shape, outputs, model.width, model.depth, model.dropout)


def _build_small_convnet(model: SmallConvnet, spec: InputSpec, outputs: int) -> nn.Module:
    channels, side = _image(model.build, spec)
    if side >> (model.depth - 1) == 0:
        raise ModelError(
            f"model.depth: {model.depth} stages halve images of {side} pixels to nothing; "
            f"expected at most {side.bit_length()}"
        )
    return ConvNet(channels, outputs, model.width, model.depth, model.dropout)


def _build_small_resnet(model: SmallResnet, spec: InputSpec, outputs: int) -> nn.Module:
    channels, _ = _image(model.build, spec)
    return ResNet(channels, outputs, model.width, model.blocks, model.dropout)


def _image(name: str, spec: InputSpec) -> tuple[int, int]:
    """Channels and the shorter side."""
    if spec.kind != "image":
        raise ModelError(f"model.build: {name} needs images, but the data has {spec.shape[0]} features; use mlp")
    return spec.shape[0], min(spec.shape[1:])


def _build_imported(model: Imported, _spec: InputSpec, outputs: int) -> nn.Module:
    try:
        factory = locate(model.build)
    except ImportError as error:
        raise ModelError(f"model.build: {error}") from error
    try:
        module = factory(**_with_num_classes(factory, model.arguments, outputs))
    except Exception as error:
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
        raise ModelError(f"{name}: fails on an input of shape {spec.shape}: {one_line(error)}") from error
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, outputs):
        raise ModelError(f"{name}: gave {found} for 2 examples, expected (2, {outputs}), one output per class, or one for a number")


BUILDERS: dict[str, Callable[[Any, InputSpec, int], nn.Module]] = {
    "linear": _build_linear,
    "mlp": _build_mlp,
    "small_convnet": _build_small_convnet,
    "small_resnet": _build_small_resnet,
    "imported": _build_imported,
}
