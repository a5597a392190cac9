"""The work of `benchmarks.loops` as a LightningModule; apart from it because Lightning takes seconds to import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional

from benchmarks.loops import Timeline, Work

Batch = tuple[Tensor, Tensor]


class Batches:
    """An iterable with a length, which is all that Lightning asks of a loader."""

    def __init__(self, count: int, make: Callable[[], Iterator[Batch]]) -> None:
        self.count = count
        self.make = make

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return self.make()


class Module(LightningModule):
    """One training step, one validation step of both sets of weights, and an average that follows."""

    def __init__(self, work: Work, timeline: Timeline) -> None:
        super().__init__()
        self.work = work
        self.timeline = timeline
        self.model = work.model()
        self.average = work.average(self.model)
        self.generator = torch.Generator(work.device).manual_seed(0)

    def batches(self, split: str) -> Batches:
        """The loader of a split."""
        if split == "training_batches":
            count = -(-len(self.work.images) // self.work.batch_size)
            return Batches(count, lambda: self.work.training_batches(self.generator))
        return Batches(sum(1 for _ in self.work.validation_batches()), self.work.validation_batches)

    def configure_optimizers(self) -> Any:
        optimizer = self.work.optimizer(self.model)
        cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.work.lr_at(step) / self.work.lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def training_step(self, batch: Batch) -> Tensor:
        inputs, targets = batch
        logits = self.model(inputs)
        loss = functional.cross_entropy(logits.float(), targets)
        hits = (logits.detach().argmax(1) == targets).float().mean()
        metrics = {"train.loss": loss.detach(), "train.accuracy": hits}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(targets))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.log("train.gradient_norm", norm, on_step=False, on_epoch=True)

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update_parameters(self.model)

    def validation_step(self, batch: Batch) -> None:
        inputs, targets = batch
        for name, model in (("raw", self.model), ("ema", self.average)):
            logits = model(inputs)
            loss = functional.cross_entropy(logits.float(), targets)
            hits = (logits.argmax(1) == targets).float().mean()
            metrics = {f"validation.{name}.loss": loss, f"validation.{name}.accuracy": hits}
            self.log_dict(metrics, batch_size=len(targets))

    def on_train_epoch_start(self) -> None:
        # Checkpoints are written after the hooks of an epoch's end, so an epoch is over when the next one starts.
        self._note_epoch()

    def on_fit_end(self) -> None:
        self._note_epoch()

    def _note_epoch(self) -> None:
        if "validation.ema.accuracy" in self.trainer.callback_metrics:
            self.timeline.note(self.trainer.callback_metrics["validation.ema.accuracy"].item())
