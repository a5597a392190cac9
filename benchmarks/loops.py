"""The loops that `benchmarks.throughput` runs beside `run_trial`: one by hand, one by Lightning, doing the same work.

The work: shuffle, crop and flip each image of its own accord, normalise, forward, backward, SGD with momentum on a
cosine, update the average of the weights, measure the gradient's norm; after each epoch evaluate the raw and the
averaged weights on the whole validation split and save what is needed to go on. Data stays on the device as bytes and
both loops are fed by the same tensor code: a `DataLoader` with per-image transforms would be slower.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

PADDING = 4
EVALUATION_BATCHES = 4
"""An evaluation batch is this many times larger than a training batch, as in `run_trial`."""


@dataclass
class Timeline:
    """What a loop notes after each epoch: the moment, and the accuracy of the averaged weights."""

    seconds: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def note(self, accuracy: float) -> None:
        self.seconds.append(time.perf_counter())
        self.accuracies.append(accuracy)


@dataclass(frozen=True)
class Work:
    """What all loops have to do; images are bytes (N, C, H, W), targets (N,), on the device."""

    images: Tensor
    targets: Tensor
    validation_images: Tensor
    validation_targets: Tensor
    mean: Tensor
    std: Tensor
    make_model: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    ema_decay: float
    bf16: bool

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def steps(self) -> int:
        """Updates in all epochs."""
        return self.epochs * math.ceil(len(self.images) / self.batch_size)

    def model(self) -> nn.Module:
        """An untrained model on the device, in the layout that is fastest on CPUs and GPUs alike."""
        return self.make_model().to(self.device).to(memory_format=torch.channels_last)

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """SGD with no decay on norms and biases."""
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        fused = self.device.type == "cuda"
        return torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=fused or None
        )

    def lr_at(self, step: int) -> float:
        """Half a cosine from the top to 0."""
        return self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def average(self, model: nn.Module) -> AveragedModel:
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.ema_decay), use_buffers=True)  # type: ignore[no-untyped-call]

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def training_batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, each image cropped and flipped by a draw of its own."""
        order = torch.randperm(len(self.images), generator=generator, device=self.device)
        for rows in torch.split(order, self.batch_size):
            yield self.normalise(crop_and_flip(self.images[rows], generator)), self.targets[rows]

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = EVALUATION_BATCHES * self.batch_size
        parts = torch.split(self.validation_images, size), torch.split(self.validation_targets, size)
        for images, targets in zip(*parts, strict=True):
            yield self.normalise(images), targets

    def normalise(self, images: Tensor) -> Tensor:
        return images.sub(self.mean).mul_(1 / self.std).contiguous(memory_format=torch.channels_last)


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad (N, C, H, W) by PADDING, cut each image out at its own place, and mirror half of them."""
    count, _, height, width = images.shape
    top, left = torch.randint(2 * PADDING + 1, (2, count), generator=generator, device=images.device)
    views = functional.pad(images, (PADDING,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    cropped = views[torch.arange(count, device=images.device), :, top, left]
    mirrored = torch.rand(count, 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, cropped.flip(3), cropped)


def bare_loop(work: Work, folder: Path) -> Timeline:
    """The loop one would write by hand."""
    timeline = Timeline()
    generator = torch.Generator(work.device).manual_seed(0)
    model = work.model()
    average, optimizer = work.average(model), work.optimizer(model)
    parameters = list(model.parameters())
    step = 0
    for _ in range(work.epochs):
        model.train()
        sums = torch.zeros(3, device=work.device)
        for inputs, targets in work.training_batches(generator):
            for group in optimizer.param_groups:
                group["lr"] = work.lr_at(step)
            with work.autocast():
                logits = model(inputs)
            loss = functional.cross_entropy(logits.float(), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            optimizer.step()
            average.update_parameters(model)
            hits = (logits.detach().argmax(1) == targets).sum()
            sums += torch.stack([loss.detach() * len(targets), hits, norm])
            step += 1
        if not math.isfinite(sums[0].item()):
            raise FloatingPointError("the loss became NaN or infinite")
        accuracies = [evaluate(work, weights)[1] for weights in (model, average)]
        state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, folder / "checkpoint.pt")
        timeline.note(accuracies[1])
    return timeline


@torch.no_grad()
def evaluate(work: Work, model: nn.Module) -> tuple[float, float]:
    """Mean loss and accuracy on the whole validation split."""
    model.eval()
    sums = torch.zeros(2, device=work.device)
    for inputs, targets in work.validation_batches():
        with work.autocast():
            logits = model(inputs)
        loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
        sums += torch.stack([loss, (logits.argmax(1) == targets).sum()])
    loss_sum, hits = sums.tolist()
    return loss_sum / len(work.validation_targets), hits / len(work.validation_targets)


def lightning_loop(work: Work, folder: Path) -> Timeline:
    """The same by Lightning: its trainer, its checkpoints, its metrics; no logger and no progress bar to pay for."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from benchmarks.lightning_module import Module

    timeline = Timeline()
    trainer = Trainer(
        accelerator="gpu" if work.device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=work.epochs,
        precision="bf16-mixed" if work.bf16 else "32-true",
        callbacks=[ModelCheckpoint(dirpath=folder, every_n_epochs=1, save_top_k=1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    module = Module(work, timeline)
    trainer.fit(module, module.batches("training_batches"), module.batches("validation_batches"))
    return timeline
