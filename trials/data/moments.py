"""Mean and spread of numbers, far from zero too."""

from __future__ import annotations

import numpy as np


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation of float64 values (N,); 0 where they differ by rounding only.

    >>> moments(np.array([1.0, 3.0])), moments(np.array([0.1, 0.1, 0.1]))
    ((2.0, 1.0), (0.1, 0.0))
    """
    low, high = float(values.min()), float(values.max())
    mean = float(np.clip(values.mean(), low, high))  # a mean that rounding put outside would be no mean
    if high - low <= abs(mean) * np.finfo(np.float64).eps:
        return mean, 0.0
    return mean, float(np.sqrt(np.square(values - mean).mean()))
