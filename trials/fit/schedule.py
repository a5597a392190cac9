"""Learning rate schedules: pure functions of progress that give a factor of the top learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trials.recipe import Constant, Cosine, OneCycle, Schedule


def cosine(progress: float, start: float = 1.0, final: float = 0.0) -> float:
    """Half a cosine from ``start`` at progress 0 to ``final`` at progress 1 (arXiv:1608.03983, equation 5).

    >>> round(0.01 * cosine(0.5, final=0.01), 5)
    0.00505
    """
    return final + (start - final) * (1.0 + math.cos(math.pi * progress)) / 2.0


def one_cycle(progress: float, peak: float, start: float, final: float) -> float:
    """From ``start`` up to 1 at progress ``peak``, then down to ``final`` at progress 1, both by half cosines.

    ``peak`` may be 0 or less when there are too few steps to rise: then the start is already on the way down.

    Source: arXiv:1708.07120, in the two-phase form of ``torch.optim.lr_scheduler.OneCycleLR``.
    """
    if progress < peak:
        return cosine(progress / peak, start, 1.0)
    return cosine((progress - peak) / (1.0 - peak), 1.0, final)


def _constant_at(schedule: Constant, step: int, total_steps: int) -> float:
    warmup_steps = schedule.warmup * total_steps
    # The rise is from 0 before the first step: a step taken at 0 would be lost.
    return min(1.0, (step + 1) / warmup_steps) if step < warmup_steps else 1.0


def _cosine_at(schedule: Cosine, step: int, total_steps: int) -> float:
    warmup_steps = schedule.warmup * total_steps
    if step < warmup_steps:
        return min(1.0, (step + 1) / warmup_steps)
    return cosine((step - warmup_steps) / (total_steps - warmup_steps), 1.0, schedule.final)


def _one_cycle_at(schedule: OneCycle, step: int, total_steps: int) -> float:
    if total_steps == 1:
        return 1.0
    last_step = total_steps - 1
    return one_cycle(step / last_step, (schedule.warmup * total_steps - 1) / last_step, schedule.start, schedule.final)


SCHEDULES: dict[str, Callable[[Any, int, int], float]] = {
    "constant": _constant_at,
    "cosine": _cosine_at,
    "one_cycle": _one_cycle_at,
}


def lr_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """The share of the top learning rate to use at ``step`` (from 0) of ``total_steps``.

    A step is one applied update, so an update that fp16 skipped does not move the schedule.
    """
    return SCHEDULES[schedule.name](schedule, min(step, total_steps - 1), total_steps)
