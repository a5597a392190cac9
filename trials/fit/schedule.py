"""Learning rate schedules: pure functions of progress that give a factor of the top learning rate.

Shares of a training become whole steps by the nearest one, so that no rounding error moves a drop by a step; a period
has one step at least.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from trials.recipe import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Extension,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Sequence,
    Step,
)


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


def whole_steps(steps: float) -> int:
    """The whole number of steps nearest to ``steps``, a half upwards.

    >>> whole_steps(0.29 * 100), whole_steps(2.5)
    (29, 3)
    """
    return math.floor(steps + 0.5)


def periods_before(step: int, length: float) -> int:
    """How many periods of ``length`` steps, at least 1, each ended at the nearest whole step, are over at ``step``.

    >>> [periods_before(step, 10 / 3) for step in (2, 3, 6, 7, 9, 10)]
    [0, 1, 1, 2, 2, 3]
    """
    return math.ceil((step + 0.5) / length) - 1


def _constant_at(_schedule: Constant, _step: int, _total_steps: int) -> float:
    return 1.0


def _step_at(schedule: Step, step: int, total_steps: int) -> float:
    return math.pow(schedule.gamma, periods_before(step, max(1.0, schedule.every * total_steps)))


def _multi_step_at(schedule: MultiStep, step: int, total_steps: int) -> float:
    return math.pow(schedule.gamma, sum(max(1, whole_steps(place * total_steps)) <= step for place in schedule.at))


def _exponential_at(schedule: Exponential, step: int, total_steps: int) -> float:
    return math.pow(schedule.final, step / total_steps)


def _cyclic_at(schedule: Cyclic, step: int, total_steps: int) -> float:
    length = max(2.0, total_steps / schedule.cycles)  # one step would be a foot without a top
    number = periods_before(step, length)
    start, end = whole_steps(number * length), whole_steps((number + 1) * length)
    height = 1.0 - abs(2.0 * (step - start) / (end - start) - 1.0)
    return schedule.low + (1.0 - schedule.low) * height * (0.5**number if schedule.halve else 1.0)


def _cosine_at(schedule: Cosine, step: int, total_steps: int) -> float:
    return cosine(step / total_steps, 1.0, schedule.final)


def _cosine_restarts_at(schedule: CosineRestarts, step: int, total_steps: int) -> float:
    first, ratio = max(1.0, schedule.first * total_steps), schedule.multiply
    if ratio == 1:
        number = periods_before(step, first)
        start, end = whole_steps(number * first), whole_steps((number + 1) * first)
    else:  # cosine n (from 0) ends after first * (1 + ratio + ... + ratio**n) steps
        ends = (whole_steps(first * (ratio**n - 1) / (ratio - 1)) for n in itertools.count())
        start, end = next(pair for pair in itertools.pairwise(ends) if step < pair[1])
    return cosine((step - start) / (end - start), 1.0, schedule.final)


def _polynomial_at(schedule: Polynomial, step: int, total_steps: int) -> float:
    return schedule.final + (1.0 - schedule.final) * math.pow(1.0 - step / total_steps, schedule.power)


def _one_cycle_at(schedule: OneCycle, step: int, total_steps: int) -> float:
    if total_steps == 1:
        return 1.0
    last_step = total_steps - 1
    return one_cycle(step / last_step, (schedule.warmup * total_steps - 1) / last_step, schedule.start, schedule.final)


def _sequence_at(schedule: Sequence, step: int, total_steps: int) -> float:
    shares = [part.share for part in schedule.parts]
    ends = [whole_steps(before / sum(shares) * total_steps) for before in itertools.accumulate(shares)]
    part, start, end = next(
        (part, start, end) for part, start, end in zip(schedule.parts, [0, *ends], ends, strict=False) if step < end
    )
    return part.top * lr_factor(part.schedule, step - start, end - start)


SCHEDULES: dict[str, Callable[[Any, int, int], float]] = {
    "constant": _constant_at,
    "step": _step_at,
    "multi_step": _multi_step_at,
    "exponential": _exponential_at,
    "cyclic": _cyclic_at,
    "cosine": _cosine_at,
    "cosine_restarts": _cosine_restarts_at,
    "polynomial": _polynomial_at,
    "one_cycle": _one_cycle_at,
    "sequence": _sequence_at,
}


def lr_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """The share of the top learning rate, 0 to 1, to use at ``step`` (from 0) of ``total_steps``.

    A step is one applied update, so an update that fp16 skipped does not move the schedule. Steps past the end are
    taken at the rate of the last one.
    """
    step = min(step, total_steps - 1)
    if not isinstance(schedule, (OneCycle, Sequence)):
        warmup_steps = whole_steps(schedule.warmup * total_steps)
        if step < warmup_steps:
            # The rise is from 0 before the first step: a step taken at 0 would be lost.
            return (step + 1) / warmup_steps
        step, total_steps = step - warmup_steps, total_steps - warmup_steps
    return SCHEDULES[schedule.name](schedule, step, total_steps)


def extension_factor(extension: Extension, step: int, total_steps: int) -> float:
    """The share of the top learning rate at ``step`` (from 0) of the ``total_steps`` that were added to a training."""
    if extension.schedule == "constant":
        return extension.lr
    return extension.lr * cosine(min(step, total_steps - 1) / total_steps)
