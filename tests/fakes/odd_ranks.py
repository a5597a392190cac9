"""Models and sources that are not the same in each process of a data parallel trial."""

from __future__ import annotations

import os

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from trials.data import Source


class FailsAway(nn.Module):
    """Cannot be trained but by rank 0."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and dist.get_rank() > 0:
            raise KeyError("no such layer")
        outputs: Tensor = self.inner(inputs)
        return outputs


def of_this_process() -> Source:
    """Examples that nobody else has."""
    random = np.random.default_rng(os.getpid())
    return Source(random.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2, ("even", "odd"))
