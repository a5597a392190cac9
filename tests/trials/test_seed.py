"""Seeds: stable, unrelated, and without a trace in the caller's random state."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch

from trials.seed import derive_seed, generator, kept_random_state, seed_global_state

CPU = torch.device("cpu")


def test_a_derived_seed_is_the_first_63_bits_of_the_digest_of_its_place() -> None:
    """Written out, because a change would silently change every trial ever recorded."""
    expected = int(hashlib.sha256(b'[7, "epoch", 3]').hexdigest()[:16], 16) >> 1
    assert derive_seed(7, "epoch", 3) == expected < 2**63


def test_places_and_seeds_do_not_collide() -> None:
    places = [(), ("a",), ("a", 1), ("a", "1"), ("a1",), (1, "a"), ("a", 11), ("a", 1, 1)]
    derived = [derive_seed(seed, *place) for seed in range(50) for place in places]
    assert len(set(derived)) == len(derived)


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.random()), random.random()


def test_seeding_repeats_all_three_global_generators() -> None:
    with kept_random_state(CPU):
        seed_global_state(CPU, 5, "epoch", 1)
        first = draws()
        seed_global_state(CPU, 5, "epoch", 1)
        assert draws() == first
        seed_global_state(CPU, 5, "epoch", 2)
        assert all(one != other for one, other in zip(draws(), first, strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_random_state_is_put_back(fails: bool) -> None:
    def work() -> None:
        with kept_random_state(CPU):
            seed_global_state(CPU, 5)
            draws()
            if fails:
                raise ArithmeticError("planted")

    with kept_random_state(CPU):
        seed_global_state(CPU, 1)
        expected = draws()
        seed_global_state(CPU, 1)
        if fails:
            with pytest.raises(ArithmeticError):
                work()
        else:
            work()
        assert draws() == expected


def test_a_generator_does_not_depend_on_the_global_state() -> None:
    first = torch.rand(3, generator=generator(CPU, 2, "order", 1))
    torch.rand(1)
    assert torch.equal(first, torch.rand(3, generator=generator(CPU, 2, "order", 1)))
