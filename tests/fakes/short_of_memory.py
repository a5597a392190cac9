"""A network for which more than a few examples at once are too much."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

made: list[weakref.ref[nn.Module]] = []
"""All networks so far, as long as somebody holds them."""

ERRORS = {"host": MemoryError, "device": torch.OutOfMemoryError}


class Short(nn.Module):
    """Fits ``fits`` examples; layer norm, and no batch norm."""

    def __init__(self, num_classes: int, fits: int, error: str = "device") -> None:
        super().__init__()
        self.fits, self.error = fits, ERRORS[error]
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, num_classes))
        made.append(weakref.ref(self))

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.fits:
            raise self.error(f"CUDA out of memory. {len(inputs)} examples")
        outputs: Tensor = self.inner(inputs)
        return outputs


def net(**arguments: Any) -> nn.Module:
    return Short(**arguments)
