from __future__ import annotations

import random

import pytest

from benchmarks.single_server import highest_rate, waits


def test_who_comes_alone_waits_as_long_as_he_is_served() -> None:
    assert list(waits([0.5] * 4, workers=1, between_seconds=10.0, generator=random.Random(0))) == [0.5] * 4


def test_a_long_service_is_waited_for_by_all_who_come_meanwhile() -> None:
    # They come at 0, 1, 2 and 3; the first is served until 10, the others after him, a second each.
    assert list(waits([10.0, 1.0, 1.0, 1.0], workers=4, between_seconds=4.0, generator=random.Random(0))) == [
        10.0,
        10.0,
        10.0,
        10.0,
    ]


def test_few_workers_hold_all_that_can_be_served() -> None:
    """Each of 10 waits for 9 others at the most: 20 ms."""
    assert highest_rate([0.002] * 1000, workers=10, limit_seconds=1.0) == pytest.approx(500.0)


def test_many_workers_hold_what_keeps_the_queue_short() -> None:
    """Of 1,000 that never pause each waits for 999 others: 2 s. Where half of them are elsewhere it is 1 s."""
    rate = highest_rate([0.002] * 20_000, workers=1000, limit_seconds=1.0)
    assert 450.0 < rate <= 500.0


def test_a_service_that_takes_longer_than_the_limit_holds_no_rate() -> None:
    assert highest_rate([2.0] * 200, workers=10, limit_seconds=1.0) == 0.0
