"""Precise batch norm: the true statistics of N training examples instead of a moving average of batches.

Averaged weights give each layer other inputs than the ones its running statistics saw, so these are measured anew
(arXiv:2105.07576, section 3). The result is that of one batch of all N examples, at every depth, whatever the batch
size: layers are measured in the order in which they run, each one behind layers that already use their own measured
statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_ELEMENTS_IN_CACHE = 2**18
"""Numbers of a layer's input that are looked at together: 1 MiB."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of each channel."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Moments of ``values`` (N, C, ...) over all but the channel dimension.

        In parts that a processor's cache holds: in one piece, an image's layers take several times as long.
        """
        dims = [dim for dim in range(values.ndim) if dim != 1]
        means, squares = [], []
        parts = torch.split(values, max(1, _ELEMENTS_IN_CACHE // values[0].numel()))
        for part in parts:
            gap = part.float()
            mean = gap.mean(dims, keepdim=True)
            gap = gap - mean
            means.append(mean.flatten())
            squares.append(gap.square_().sum(dims))
        counts = torch.tensor([part.numel() // part.shape[1] for part in parts], dtype=torch.float64)[:, None]
        each, count = torch.stack(means).cpu().double(), int(counts.sum())
        mean = (each * counts).sum(0) / count
        within, between = torch.stack(squares).cpu().double().sum(0), ((each - mean).square() * counts).sum(0)
        return cls(count, mean, within + between)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets together (Chan, Golub and LeVeque, 1979): no difference of large numbers."""
        count = self.count + other.count
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        squares = self.squares + other.squares + gap * gap * (self.count * other.count / count)
        return Moments(count, mean, squares)


class _Reached(Exception):
    """The layer being measured was reached: what comes after it is not needed."""


@torch.no_grad()
def refresh_batch_norm(
    model: nn.Module,
    inputs: Tensor,
    batch_size: int,
    prepare: Callable[[Tensor], Tensor] = lambda raw: raw,
    at_once_elements: int = 0,
) -> None:
    """Set the running statistics of all batch norm layers to those of ``inputs`` (N, *shape).

    ``prepare`` makes the model's input from a slice of ``inputs``. Everything runs in eval mode (no dropout); the
    modes of all modules are as before when this ends, also by an error, and the parameters and the momentum of the
    layers are not touched. One pass over the inputs where they are one batch, or what the layers are given of all of
    them has at most ``at_once_elements`` numbers a layer; else about half a pass a layer.
    """
    batches = torch.split(inputs, batch_size)
    with eval_mode(model):
        layers, widest = _layers_in_order(model, prepare(inputs[:2]))
        if len(batches) == 1 or widest * len(inputs) <= at_once_elements:
            counts = _measure_all(model, layers, prepare(inputs))
        else:
            counts = [_measure_one(model, layer, batches, prepare) for layer in layers]
    for layer, count in zip(layers, counts, strict=True):
        assert layer.running_var is not None
        # As in training, the kept variance is the unbiased one; while measuring, as in training, the biased one acts.
        layer.running_var.mul_(count / max(count - 1, 1))


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for all modules of ``model``; each is put back into its own mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _hooks(layers: Sequence[nn.Module], hook: Callable[[nn.Module, tuple[Tensor, ...]], None]) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers_in_order(model: nn.Module, examples: Tensor) -> tuple[list[_BatchNorm], int]:
    """The layers that keep statistics and take part in a forward pass, in the order of their first use; and how many
    numbers an example has for the layer that is given most."""
    kept = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    order: list[_BatchNorm] = []
    widest = 0

    def note(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal widest
        assert isinstance(layer, _BatchNorm)
        widest = max(widest, args[0].numel() // len(examples))
        if layer not in order:
            order.append(layer)

    with _hooks(kept, note):
        if kept:
            model(examples)
    return order, widest


def _assign(layer: _BatchNorm, moments: Moments) -> int:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(moments.mean)
    layer.running_var.copy_(moments.squares / moments.count)
    return moments.count


def _measure_all(model: nn.Module, layers: list[_BatchNorm], batch: Tensor) -> list[int]:
    """One pass: each layer takes the statistics of its own input just before it runs."""
    counts: dict[nn.Module, int] = {}

    def measure(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        if layer not in counts:
            counts[layer] = _assign(layer, Moments.of(args[0]))

    with _hooks(layers, measure):
        if layers:
            model(batch)
    return [counts[layer] for layer in layers]


def _measure_one(
    model: nn.Module, layer: _BatchNorm, batches: Sequence[Tensor], prepare: Callable[[Tensor], Tensor]
) -> int:
    """All batches up to ``layer``, whose input is then known in full."""
    parts: list[Moments] = []

    def measure(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        parts.append(Moments.of(args[0]))
        raise _Reached

    with _hooks([layer], measure):
        for batch in batches:
            with contextlib.suppress(_Reached):
                model(prepare(batch))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return _assign(layer, total)
