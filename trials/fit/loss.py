"""Cross entropy with label smoothing (arXiv:1512.00567, section 7), and of two blended labels (arXiv:1710.09412)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, blend: tuple[Tensor, float] | None = None
) -> Tensor:
    """Mean loss of ``logits`` (N, classes) against ``targets`` (N,), a scalar.

    ``blend`` is ``(other targets (N,), lam)``: the loss is then ``lam * L(targets) + (1 - lam) * L(other)``.
    """
    loss = functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if blend is None:
        return loss
    other, lam = blend
    return lam * loss + (1.0 - lam) * functional.cross_entropy(logits, other, label_smoothing=label_smoothing)


def correct_count(logits: Tensor, targets: Tensor, blend: tuple[Tensor, float] | None = None) -> Tensor:
    """How many of ``logits`` (N, classes) have their largest entry at ``targets`` (N,), a float scalar on the device.

    With a ``blend``, a hit on either label counts for its share.
    """
    guesses = logits.argmax(dim=1)
    hits = (guesses == targets).sum(dtype=torch.float32)
    if blend is None:
        return hits
    other, lam = blend
    return lam * hits + (1.0 - lam) * (guesses == other).sum(dtype=torch.float32)
