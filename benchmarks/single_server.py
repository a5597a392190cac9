"""Many who come again and again to one who serves them in turn: how long they wait, by how long each was served."""

from __future__ import annotations

import heapq
import math
import random
from array import array
from collections.abc import Sequence

from benchmarks.simulated import SPREAD_FRACTION

PRECISION = 1.02
"""The highest rate is found to within this factor."""
SLOWEST = 1e-3
"""Events a second: a rate below which none is looked for."""


def quantile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that ``fraction`` of all values do not exceed; 0 of none.

    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5), quantile([4.0, 1.0, 3.0, 2.0], 1.0)
    (2.0, 4.0)
    """
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)] if values else 0.0


def waits(
    work_seconds: Sequence[float], workers: int, between_seconds: float, generator: random.Random
) -> array[float]:
    """How long it takes from when each comes until he has been served, in seconds.

    Args:
        work_seconds: how long each is served, in the order in which they are.
        workers: how many there are; each comes again after he was served.
        between_seconds: how long that takes him, on average.
        generator: for how long it takes each time.

    >>> list(waits([2.0, 2.0, 2.0], workers=2, between_seconds=0.0, generator=random.Random(0)))
    [2.0, 4.0, 4.0]
    """
    due = [between_seconds * worker / workers for worker in range(workers)]
    now, seconds = 0.0, array("d")
    for work in work_seconds:
        came = heapq.heappop(due)
        now = max(now, came) + work
        seconds.append(now - came)
        heapq.heappush(due, now + between_seconds * generator.uniform(1 - SPREAD_FRACTION, 1 + SPREAD_FRACTION))
    return seconds


def highest_rate(work_seconds: Sequence[float], workers: int, limit_seconds: float) -> float:
    """The most events a second with which 99 of 100 are served within ``limit_seconds``; 0 if there is no such rate.

    Few workers cannot make one another wait for long: then it is all that can be served.
    """
    capacity = len(work_seconds) / sum(work_seconds)

    def is_held(rate: float) -> bool:
        between_seconds = max(0.0, workers / rate - 1 / capacity)
        return quantile(waits(work_seconds, workers, between_seconds, random.Random(0)), 0.99) <= limit_seconds

    if is_held(capacity):
        return capacity
    low, high = SLOWEST, capacity
    if not is_held(low):
        return 0.0
    while high / low > PRECISION:
        middle = math.sqrt(high * low)
        low, high = (middle, high) if is_held(middle) else (low, middle)
    return low
