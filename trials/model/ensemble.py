"""Several models that answer as one: the mean of their probabilities, or of their values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trials.fit.loss import class_scores
from trials.recipe import Loss
from trials.recipe.data import Task


class Ensemble(nn.Module):
    """Members whose answers are averaged; their state is ``members.<i>.<name>``."""

    def __init__(
        self, members: Sequence[nn.Module], losses: Sequence[Loss | None], shares: Sequence[float], task: Task
    ) -> None:
        """Each member beside the loss that it was trained to minimise, by which its outputs are read, and its share,
        above 0; shares are taken in proportion."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.losses = tuple(losses)
        self.task = task
        total = math.fsum(shares)
        of_all = torch.tensor([share / total for share in shares], dtype=torch.float64)
        # Not part of the state: the file with the weights says them, and the module is made by these.
        self.register_buffer("shares", of_all.float(), persistent=False)
        self.register_buffer("log_shares", of_all.log().float(), persistent=False)

    shares: Tensor
    """(K,), their sum is 1."""
    log_shares: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """The members' input (N, ...) -> the log of the mean probability (N, classes), or the mean value (N, 1).

        Float32, also under autocast. A softmax of the former is the mean of the members' probabilities.
        """
        outputs = [member(inputs).float() for member in self.members]
        if self.task == "regression":
            return (torch.stack(outputs) * self.shares[:, None, None]).sum(dim=0)
        scores = [class_scores(each, loss) for each, loss in zip(outputs, self.losses, strict=True)]
        logs = torch.stack(scores).log_softmax(dim=2) + self.log_shares[:, None, None]
        return logs.logsumexp(dim=0)
