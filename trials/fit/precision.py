"""Arithmetic of a trial: fp32, tf32, and autocast to bf16 or to fp16 with a scaled loss (arXiv:1710.03740)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

AUTOCAST_DTYPES: dict[str, torch.dtype | None] = {
    "fp32": None,
    "tf32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass of ``precision`` runs."""
    dtype = AUTOCAST_DTYPES[precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """A scaler that scales under fp16 and hands everything through otherwise."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Set the device's float32 mode to that of ``precision`` and choose repeatable kernels; put all back afterwards.

    The same recipe gives the same bits on the same kind of device (``torch.use_deterministic_algorithms``): an
    operation that has no repeatable kernel runs all the same, with torch's warning. Nothing is set on a CPU.
    """
    if device.type != "cuda":
        yield
        return
    # cuBLAS reads this when its first handle is made; without it torch warns that matrix products may differ.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    modes = [switch.fp32_precision for switch in switches]
    kernels, fill = (cudnn.deterministic, cudnn.benchmark), memory.fill_uninitialized_memory
    strict = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        cudnn.deterministic, cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
        yield
    finally:
        for switch, mode in zip(switches, modes, strict=True):
            switch.fp32_precision = mode
        cudnn.deterministic, cudnn.benchmark = kernels
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        memory.fill_uninitialized_memory = fill
