import numpy as np

from trials.data.moments import moments


def test_moments_are_those_of_numpy_and_rounding_is_no_spread() -> None:
    values = np.random.default_rng(0).normal(5, 3, 1000)
    assert moments(values) == (values.mean(), values.std())
    assert moments(np.full(1000, 0.1)) == (0.1, 0.0)
    assert moments(np.array([1e9, np.nextafter(1e9, 2e9)]))[1] == 0.0
