import json

import pytest
import torch

from trials.data import Target
from trials.errors import DataError


def test_classes_are_counted_even_where_nobody_is() -> None:
    target = Target.of_classes(torch.tensor([2, 0, 2]), ("a", "b", "c"))
    assert target == Target("classification", ("a", "b", "c"), (1, 0, 2))
    assert target.outputs == 3
    indices = torch.tensor([1, 2])
    assert target.as_trained(indices) is indices


def test_numbers_are_standardised_by_the_population() -> None:
    target = Target.of_numbers(torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64), "s")
    assert (target.task, target.mean, target.std) == ("regression", 4.0, 5.0**0.5)
    assert target.outputs == 1
    trained = target.as_trained(torch.tensor([4.0, 4.0 + 2 * 5.0**0.5], dtype=torch.float64))
    assert trained.dtype == torch.float32
    assert trained.tolist() == [0.0, 2.0]


def test_years_keep_their_digits() -> None:
    numbers = torch.tensor([1e9 - 1, 1e9 + 1], dtype=torch.float64)
    assert Target.of_numbers(numbers, "s").as_trained(numbers).tolist() == [-1.0, 1.0]


def test_a_number_that_never_varies_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match=r"^s: all 3 training targets are 0.1; there is nothing to learn$"):
        Target.of_numbers(torch.full((3,), 0.1, dtype=torch.float64), "s")


@pytest.mark.parametrize(
    "target",
    [Target("classification", ("a", "b"), (3, 4)), Target("regression", mean=0.1 + 0.2, std=1 / 3)],
)
def test_json_round_trip(target: Target) -> None:
    assert Target.from_dict(json.loads(json.dumps(target.to_dict()))) == target
