"""Where a model is, and how its images lie in memory."""

from __future__ import annotations

import torch
from torch import nn

from trials.data import InputSpec
from trials.recipe import Recipe


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the current GPU if there is one, or the CPU; a GPU always with its number."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return torch.empty(0, device=chosen).device  # "cuda" would not equal the "cuda:0" of the tensors on it


def on_model_device(model: nn.Module, device: torch.device, recipe: Recipe, spec: InputSpec) -> nn.Module:
    """The model on ``device``; for images, unless the recipe says otherwise, with channels last, in which convolutions
    are fastest (also on a CPU)."""
    model = model.to(device)
    is_for_images = spec.kind == "image" and recipe.train.channels_last
    return model.to(memory_format=torch.channels_last) if is_for_images else model
