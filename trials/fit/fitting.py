"""A model and all that changes with it from update to update: optimizer, schedule, loss scaler, moving average."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trials.average.ema import WeightEma
from trials.fit.optimizer import build_optimizer, clip_gradients
from trials.fit.precision import loss_scaler
from trials.fit.schedule import lr_factor
from trials.recipe import Train


class Fitting:
    """A model and all that changes with it from step to step."""

    def __init__(self, model: nn.Module, section: Train, total_steps: int, device: torch.device) -> None:
        self.model = model
        self.section = section
        self.total_steps = total_steps
        self.device = device
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        # A fused optimizer under a scaler skips inside the kernel, where the host cannot see that it did.
        fused = device.type == "cuda" and section.precision != "fp16"
        self.optimizer = build_optimizer(model, section.optimizer, fused)
        self.scaler = loss_scaler(section.precision, device)
        self.ema = None if section.ema is None else WeightEma(model, section.ema)
        self.steps = 0
        """Applied updates so far."""
        self.skipped_steps = 0
        """Updates skipped because fp16 gradients overflowed."""
        self._applied = False
        self.optimizer.register_step_post_hook(self._note_applied)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self.section.optimizer.lr * lr_factor(self.section.schedule, self.steps, self.total_steps)

    def update(self) -> tuple[bool, Tensor]:
        """Apply the gathered gradients; whether fp16 let them through, and their norm before clipping (a scalar)."""
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.parameters, self.section.clip_norm, self.section.clip_value)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
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

    def state(self) -> dict[str, Any]:
        """All but the weights, for a checkpoint."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`; continues exactly once the weights are loaded too."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps, self.skipped_steps = state["steps"], state["skipped_steps"]

    def _note_applied(self, *_: object) -> None:
        self._applied = True
