"""What an epoch of training came to, summed up on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trials.errors import Diverged
from trials.fit.distributed import Ranks


@dataclass(frozen=True)
class EpochTraining:
    """What one epoch of training came to."""

    loss: float
    """Mean over all examples, of the loss that was minimised (smoothed and blended labels and a teacher's answers
    included)."""
    score_name: str
    """``accuracy`` in classification, ``mae`` in regression."""
    score: float
    """Share of correct guesses while training, or mean absolute error; blended labels count by their shares."""
    lr: float
    """Learning rate of the last step."""
    gradient_norm: float
    """Mean over the applied updates, before clipping; NaN if there was none."""

    def metrics(self) -> dict[str, float]:
        """By the names of an epoch report; what is not a number is left out."""
        values = {
            "loss": self.loss,
            self.score_name: self.score,
            "lr": self.lr,
            "gradient_norm": self.gradient_norm,
        }
        return {f"train.{name}": value for name, value in values.items() if math.isfinite(value)}


class Tally:
    """Sums over an epoch and all ranks, from numbers that stay on the device until they are read together."""

    def __init__(self, epoch: int, ranks: Ranks, steps_between_reads: int) -> None:
        self._epoch = epoch
        self._ranks = ranks
        self._steps_between_reads = steps_between_reads
        self._steps = self._applied_steps = self._examples = 0
        """Updates; of these the applied ones, and the examples, that are in the sums."""
        self._loss = self._score = self._norm = 0.0
        self._pending: list[tuple[int, int, Tensor, Tensor]] = []
        self._norms: list[Tensor] = []

    def add_batch(self, count: int, loss: Tensor, score: Tensor) -> None:
        """Add the mean loss and the counted score of a batch of ``count`` examples."""
        self._pending.append((self._steps + 1, count, loss, score))

    def add_step(self, applied: bool, norm: Tensor, lr: float) -> None:
        """Add an update. Raises :class:`Diverged` when one of the losses so far is not finite."""
        self._steps += 1
        if applied:
            self._norms.append(norm)
        if self._steps % self._steps_between_reads == 0:
            self._read(lr)

    def close(self, lr: float, score_name: str, unit: float) -> EpochTraining:
        """What the epoch came to; ``unit`` is what one unit of the score is worth."""
        self._read(lr)
        norm = self._norm / self._applied_steps if self._applied_steps else math.nan
        return EpochTraining(self._loss / self._examples, score_name, unit * self._score / self._examples, lr, norm)

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint. What is unread stays so: in other groups its sums would round differently."""
        return {
            "counts": [self._steps, self._applied_steps, self._examples],
            "sums": [self._loss, self._score, self._norm],
            "pending": [[step, count, loss.cpu(), score.cpu()] for step, count, loss, score in self._pending],
            "norms": [norm.cpu() for norm in self._norms],
        }

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of :meth:`state`; what is unread lies on ``device`` again, in the sums of one rank only."""
        self._steps, self._applied_steps, self._examples = state["counts"]
        self._loss, self._score, self._norm = state["sums"]
        ours = torch.Tensor.clone if self._ranks.leads else torch.zeros_like
        self._pending = [
            (step, count, ours(loss).to(device), ours(score).to(device))
            for step, count, loss, score in state["pending"]
        ]
        self._norms = [norm.to(device) for norm in state["norms"]]

    def _read(self, lr: float) -> None:
        if not self._pending:
            return
        steps, counts, losses, scores = zip(*self._pending, strict=True)
        batches = len(counts)
        stacked = torch.stack([*losses, *scores, *(norm.float() for norm in self._norms)])
        self._ranks.sum_up(stacked[: 2 * batches])  # all ranks have the same norms
        values = stacked.tolist()
        for step, count, loss in zip(steps, counts, values[:batches], strict=False):
            if not math.isfinite(loss):
                raise Diverged(
                    f"the training loss became {loss} in epoch {self._epoch} step {step} at learning rate {lr:.3g}; "
                    "lower train.optimizer.lr or set train.clip_norm"
                )
            self._loss += loss * count
        self._score += math.fsum(values[batches : 2 * batches])
        self._norm += math.fsum(values[2 * batches :])
        self._examples += sum(counts)
        self._applied_steps += len(self._norms)
        self._pending, self._norms = [], []
