"""Evaluation over a whole split, with the uncertainty that its size leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trials.data import Preprocess, Split
from trials.fit.loss import correct_count
from trials.fit.precision import autocast


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on a split of ``count`` examples."""

    loss: float
    """Mean cross entropy over all examples, without label smoothing."""
    accuracy: float
    count: int
    correct: int


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; from the host to a GPU through pinned memory, so that nothing waits for the copy."""
    if tensor.device == device:
        return tensor
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def model_inputs(raw: Tensor, preprocess: Preprocess, device: torch.device) -> Tensor:
    """Raw inputs (N, *shape), on any device, as the model takes them: normalised, on ``device``, in its best layout."""
    inputs = preprocess.normalise(on_device(raw, device))
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def evaluate(
    model: nn.Module, split: Split, preprocess: Preprocess, device: torch.device, batch_size: int, precision: str
) -> Evaluation:
    """Loss and accuracy of ``model`` in eval mode over all of ``split``; the model's mode is put back.

    Sums over examples divided by their number: a mean of batch means would give the examples of a short last batch
    too much weight.
    """
    was_training = model.training
    model.eval()
    losses, hits = [], []
    try:
        with torch.no_grad():
            for start in range(0, len(split), batch_size):
                inputs = model_inputs(split.inputs[start : start + batch_size], preprocess, device)
                targets = on_device(split.targets[start : start + batch_size], device)
                with autocast(precision, device):
                    logits = model(inputs)
                losses.append(functional.cross_entropy(logits.float(), targets, reduction="sum"))
                hits.append(correct_count(logits, targets))
    finally:
        model.train(was_training)
    correct = round(math.fsum(torch.stack(hits).tolist()))
    loss = math.fsum(torch.stack(losses).tolist()) / len(split)
    return Evaluation(loss=loss, accuracy=correct / len(split), count=len(split), correct=correct)


def wilson_interval(correct: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The interval that holds the true accuracy with 95 % confidence (E. B. Wilson, JASA 22, 1927).

    It stays within [0, 1] and has a width even at 0 % and 100 %.
    """
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # At 0 % and 100 % an end is exactly 0 or 1; rounding must not carry it past.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == count else centre + half
    return low, high


def accuracy_digits(count: int) -> int:
    """Decimals of an accuracy that a split of ``count`` examples supports: one example must move the last one.

    >>> accuracy_digits(100), accuracy_digits(360), accuracy_digits(10000)
    (2, 2, 4)
    """
    return len(str(count)) - 1
