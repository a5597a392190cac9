"""One epoch of training: shuffle, vary, forward, backward, and an update for each group of batches.

The last group of batches may be short: every batch counts by its number of examples, so that a group gives the
gradient of one batch of all its examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.data import Preprocess, Split
from trials.data.augment import augment
from trials.data.mix import MIXES
from trials.errors import Diverged
from trials.fit.evaluate import model_inputs, on_device
from trials.fit.fitting import Fitting
from trials.fit.loss import correct_count, cross_entropy
from trials.fit.precision import autocast
from trials.recipe import Data, Train
from trials.seed import generator

_STEPS_BETWEEN_READS = 20
"""On a GPU, losses are read this often: each read waits for the device. On a CPU, after every step."""


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """The sizes of the batches of ``count`` examples; a last batch of one joins the one before it.

    Batch norm cannot train on a single example.

    >>> batch_sizes(9, 4), batch_sizes(10, 4)
    ([4, 5], [4, 4, 2])
    """
    sizes = [batch_size] * (count // batch_size)
    rest = count % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def steps_per_epoch(count: int, section: Train) -> int:
    """Updates in one pass over ``count`` examples."""
    return math.ceil(len(batch_sizes(count, section.batch_size)) / section.accumulate)


@dataclass(frozen=True)
class EpochTraining:
    """What one epoch of training came to."""

    loss: float
    """Mean over all examples, of the loss that was minimised (smoothed and blended labels included)."""
    accuracy: float
    """Share of correct guesses while training; blended labels count by their shares."""
    lr: float
    """Learning rate of the last step."""
    gradient_norm: float
    """Mean norm of the gradient before clipping, over the applied steps; NaN if none was."""

    def metrics(self) -> dict[str, float]:
        """By the names of an epoch report; what is not finite (such a norm) is left out."""
        values = {"loss": self.loss, "accuracy": self.accuracy, "lr": self.lr, "gradient_norm": self.gradient_norm}
        return {f"train.{name}": value for name, value in values.items() if math.isfinite(value)}


def train_epoch(
    fitting: Fitting, split: Split, preprocess: Preprocess, data: Data, epoch: int, seed: int
) -> EpochTraining:
    """Train ``fitting`` on all of ``split`` once, in an order drawn from ``seed`` and ``epoch``.

    Dropout draws from the global generator, which the caller seeds. Raises :class:`Diverged` within the epoch when
    the loss becomes NaN or infinite.
    """
    section, device = fitting.section, fitting.device
    vary = Variation(data, device, seed, epoch)
    fitting.model.train()
    order = torch.randperm(
        len(split), generator=generator(split.inputs.device, seed, "order", epoch), device=split.inputs.device
    )
    batches = torch.split(order, batch_sizes(len(split), section.batch_size))
    tally = _Tally(epoch, steps_between_reads=_STEPS_BETWEEN_READS if device.type == "cuda" else 1)
    lr = fitting.lr
    for start in range(0, len(batches), section.accumulate):
        group = batches[start : start + section.accumulate]
        examples = sum(map(len, group))
        for rows in group:
            inputs, targets, blend = vary(split.inputs[rows], split.targets[rows], preprocess)
            with autocast(section.precision, device):
                logits = fitting.model(inputs)
            loss = cross_entropy(logits.float(), targets, section.label_smoothing, blend)
            share = len(rows) / examples
            fitting.scaler.scale(loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
            tally.add_batch(len(rows), loss.detach(), correct_count(logits.detach(), targets, blend))
        lr = fitting.lr
        tally.add_step(*fitting.update(), lr=lr)
    return tally.close(lr)


class Variation:
    """What happens to the examples of a batch before the model sees them: augment, normalise, mix."""

    def __init__(self, data: Data, device: torch.device, seed: int, epoch: int) -> None:
        self.data = data
        self.device = device
        self._augment = generator(device, seed, "augment", epoch)
        # On the host: the blend ratio is needed there, and reading it from a GPU would wait for all queued work.
        self._mix = generator(torch.device("cpu"), seed, "mix", epoch)

    def __call__(
        self, raw: Tensor, targets: Tensor, preprocess: Preprocess
    ) -> tuple[Tensor, Tensor, tuple[Tensor, float] | None]:
        """Raw inputs (N, *shape) and targets (N,) -> the model's inputs, targets, and the blend with other targets."""
        if self.data.augment:
            raw = augment(on_device(raw, self.device), self.data, self._augment)
        inputs = model_inputs(raw, preprocess, self.device)
        targets = on_device(targets, self.device)
        if self.data.mix == "none":
            return inputs, targets, None
        mixed = MIXES[self.data.mix](inputs, targets, self.data.mix_alpha, self._mix)
        return mixed.inputs, mixed.targets_a, (mixed.targets_b, mixed.lam)


class _Tally:
    """Sums over an epoch, from numbers that stay on the device until they are read together."""

    def __init__(self, epoch: int, steps_between_reads: int) -> None:
        self._epoch = epoch
        self._steps_between_reads = steps_between_reads
        self._steps = self._applied_steps = self._examples = 0
        self._loss = self._correct = self._norm = 0.0
        self._pending: list[tuple[int, int, Tensor, Tensor]] = []
        self._norms: list[Tensor] = []

    def add_batch(self, count: int, loss: Tensor, correct: Tensor) -> None:
        self._pending.append((self._steps + 1, count, loss, correct))

    def add_step(self, applied: bool, norm: Tensor, lr: float) -> None:
        self._steps += 1
        if applied:
            self._norms.append(norm)
        if self._steps % self._steps_between_reads == 0:
            self._read(lr)

    def close(self, lr: float) -> EpochTraining:
        self._read(lr)
        norm = self._norm / self._applied_steps if self._applied_steps else math.nan
        return EpochTraining(self._loss / self._examples, self._correct / self._examples, lr, norm)

    def _read(self, lr: float) -> None:
        if not self._pending:
            return
        steps, counts, losses, corrects = zip(*self._pending, strict=True)
        values = torch.stack([*losses, *corrects, *(norm.float() for norm in self._norms)]).tolist()
        batches = len(counts)
        for step, count, loss in zip(steps, counts, values[:batches], strict=False):
            if not math.isfinite(loss):
                raise Diverged(
                    f"the training loss became {loss} in epoch {self._epoch} step {step} at learning rate {lr:.3g}; "
                    "lower train.optimizer.lr or set train.clip_norm"
                )
            self._loss += loss * count
        self._correct += math.fsum(values[batches : 2 * batches])
        self._norm += math.fsum(values[2 * batches :])
        self._examples += sum(counts)
        self._applied_steps += len(self._norms)
        self._pending, self._norms = [], []
