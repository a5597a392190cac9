"""A model and all that changes with it from update to update: optimizer, schedule, loss scaler, averages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trials.average.ema import WeightEma
from trials.average.swa import WeightSwa, snapshots_until
from trials.data.target import Target
from trials.errors import TrialError
from trials.fit.distil import Distillation
from trials.fit.distributed import ALONE, Averaged, Ranks
from trials.fit.loss import build_loss
from trials.fit.optimizer import build_optimizer, clip_gradients
from trials.fit.pace import extended_factor_at, factor_at
from trials.fit.precision import loss_scaler
from trials.locate import one_line
from trials.model.pretrained import freeze, lr_of
from trials.recipe import Recipe


class Fitting:
    """A model and all that changes with it from step to step.

    ``head`` is the name of a pretrained model's head, which may learn faster than the rest. With a ``distillation`` the
    loss is not of the labels alone.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        target: Target,
        steps_per_epoch: int,
        device: torch.device,
        head: str = "",
        ranks: Ranks = ALONE,
        distillation: Distillation | None = None,
    ) -> None:
        train, pretrained = recipe.train, recipe.model.pretrained
        self.model = model
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.device = device
        self.head = head
        self.ranks = ranks
        self.distillation = distillation
        self._call: Callable[[Tensor], Tensor] = _compiled(model) if train.compile else model
        self._averaged: Averaged | None = None
        self.parameters: list[Tensor] = list(model.parameters())
        self.loss = build_loss(train.loss, target, device)
        # A fused optimizer under a scaler skips inside the kernel, where the host cannot see that it did.
        fused = device.type == "cuda" and train.precision != "fp16"
        rates = None if pretrained is None else lr_of(pretrained, head)
        self.optimizer = build_optimizer(model, train.optimizer, fused, rates)
        self.scaler = loss_scaler(train.precision, device)
        self.ema = None if train.ema is None else WeightEma(model, train.ema)
        self.swa = None if train.swa is None else WeightSwa(model)
        self.top_lr: float = train.optimizer.lr
        """Learning rate at the top of the schedule: the optimizer's, or the one that a range test found."""
        self.steps = 0
        """Applied updates so far."""
        self.skipped_steps = 0
        """Updates skipped because fp16 gradients overflowed."""
        self.extension_steps: list[int] = []
        """Applied updates before each extension that has begun."""
        self._applied = False
        self.optimizer.register_step_post_hook(self._note_applied)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        if self.extension_steps:
            step = self.steps - self.extension_steps[-1]
            factor = extended_factor_at(self.recipe, len(self.extension_steps) - 1, step, self.steps_per_epoch)
        else:
            factor = factor_at(self.recipe, self.steps, self.steps_per_epoch)
        return self.top_lr * factor

    def begin_epoch(self, epoch: int) -> None:
        """Set everything up for the training of ``epoch``, counted from 1."""
        self.model.train()
        if self.recipe.model.pretrained is not None:
            # Counted from the pretrained weights on, from which those to start from came.
            before = 0 if self.recipe.start is None else self.recipe.start.epochs
            freeze(self.model, self.recipe.model.pretrained, self.head, before + epoch)
        begun = sum(extension.after_epochs < epoch for extension in self.recipe.extensions)
        self.extension_steps += [self.steps] * (begun - len(self.extension_steps))
        if self.ranks.size > 1:
            self._averaged = Averaged(self.model, self._call, self.device)

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's outputs for the training of a batch."""
        return (self._averaged or self._call)(inputs)

    def batch(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """What surrounds a batch's forward and backward pass; with the ``is_last`` before an update the ranks meet."""
        return contextlib.nullcontext() if self._averaged is None else self._averaged.batch(is_last)

    def end_epoch(self, epoch: int) -> None:
        """Take a snapshot for SWA if one is due after ``epoch``; give all ranks the same buffers."""
        self._averaged = None
        self._take_snapshot(epoch)
        self.ranks.share_buffers([self.model, *self.averages().values()])

    def _take_snapshot(self, epoch: int) -> None:
        section, epochs = self.recipe.train.swa, self.recipe.train.epochs
        if self.swa is None or section is None:
            return
        before = snapshots_until(epoch - 1, section, epochs)
        if snapshots_until(epoch, section, epochs) > before:
            self.swa.take(before)

    def update(self) -> tuple[bool, Tensor]:
        """Apply the gathered gradients; whether fp16 let them through, and their norm before clipping (a scalar)."""
        train = self.recipe.train
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.parameters, train.clip_norm, train.clip_value)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["lr_factor"]
        self._applied = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not self._applied:
            self.skipped_steps += 1
            return False, norm
        self.steps += 1
        if self.ema is not None:
            self.ema.update(self.steps)
        return True, norm

    def averages(self) -> dict[str, nn.Module]:
        """The models that follow this one, by kind."""
        followers = {"ema": self.ema, "swa": self.swa}
        return {kind: follower.model for kind, follower in followers.items() if follower is not None}

    def state(self) -> dict[str, Any]:
        """All but the weights, for a checkpoint."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "top_lr": self.top_lr,
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
            "extension_steps": self.extension_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`; continues exactly once the weights are loaded too."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.top_lr = state["top_lr"]
        self.steps, self.skipped_steps = state["steps"], state["skipped_steps"]
        self.extension_steps = list(state["extension_steps"])

    def _note_applied(self, *_: object) -> None:
        self._applied = True


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """``torch.compile`` of the model, whose first call is where a missing compiler shows.

    One program for each shape of batch: with sizes left open, which program runs would depend on what ran before, and a
    continued trial would not be bit for bit the same. For that reason too nothing is kept of the trial before.
    """
    torch.compiler.reset()
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)

    def forward(inputs: Tensor) -> Tensor:
        try:
            return compiled(inputs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise TrialError(
                f"train.compile: the model cannot be compiled here ({one_line(error)}); set it to false"
            ) from error

    return forward
