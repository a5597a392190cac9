"""Files of weights are read part by part, and what is made of them is rounded once."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from trials.average.soup import mean
from trials.average.stored import PART_ELEMENTS, StoredWeights, combined, in_memory, opened_alike, rounded
from trials.errors import TrialError
from trials.manifest import Damaged


def write(path: Path, weights: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(weights, path)
    return path


def seeded_weights(seed: int) -> dict[str, Tensor]:
    """Of every kind, some a part and a bit in size."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "long": torch.randn(PART_ELEMENTS + 1, generator=generator),
        "two_parts": torch.randn(2, PART_ELEMENTS, generator=generator),
        "double": torch.randn(7, generator=generator, dtype=torch.float64),
        "half": torch.randn(3, 5, generator=generator).half(),
        "brain": torch.randn(PART_ELEMENTS + 3, generator=generator).bfloat16(),
        "scalar": torch.randn((), generator=generator),
        "nothing": torch.zeros(0, 4),
        "counter": torch.tensor(seed),
        "mask": torch.rand(9, generator=generator) < 0.5,
    }


def test_what_is_read_part_by_part_is_what_was_written(tmp_path: Path) -> None:
    weights = seeded_weights(0)
    with opened_alike([write(tmp_path / "weights", weights)]) as files:
        (file,) = files
        read = in_memory(
            file, ((name, part, file.read(name, part)) for name, of in file.tensors.items() for part in of.parts())
        )
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert all((read[name].dtype, read[name].shape) == (weights[name].dtype, weights[name].shape) for name in weights)


@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.bfloat16, 8), (torch.float16, 11), (torch.float32, 24), (torch.float64, 53)]
)
def test_rounded_once_to_the_nearest(dtype: torch.dtype, digits: int) -> None:
    """Against exact fractions; also just beside a tie, where a rounding on the way would make it one."""
    generator = torch.Generator().manual_seed(1)
    step = 2.0 ** (1 - digits)
    ties = [1 + step / 2, 1 + 3 * step / 2]
    beside = [tie + sign * 2.0**-40 for tie in ties for sign in (-1, 1)]
    values = torch.cat([torch.tensor(ties + beside).double(), torch.tensor(ties + beside, dtype=torch.float64)])
    values = torch.cat([values, -values, 1 + torch.rand(200, generator=generator, dtype=torch.float64)])
    nearest = [round(Fraction(value) / Fraction(step)) * Fraction(step) for value in values.tolist()]  # ties to even
    assert rounded(values.numpy(), dtype).double().tolist() == [float(value) for value in nearest]


def test_no_number_and_no_limit_is_rounded_away() -> None:
    values = torch.tensor([math.nan, math.inf, -math.inf, 1e300, -0.0], dtype=torch.float64)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        found = rounded(values.numpy(), dtype).tolist()
        assert math.isnan(found[0])
        assert found[1:4] == [math.inf, -math.inf, math.inf]
        assert math.copysign(1.0, found[4]) == -1.0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"a": torch.zeros(2, 3), "b": torch.zeros(2)},
            "tensor b is missing in {0}, but float32 [2] in {1}; ",
        ),
        ({}, "tensor a is float32 [2, 3] in {0}, but missing in {1}; "),
        ({"a": torch.zeros(3, 2)}, "tensor a is float32 [2, 3] in {0}, but float32 [3, 2] in {1}; "),
        ({"a": torch.zeros(2, 3).half()}, "tensor a is float32 [2, 3] in {0}, but float16 [2, 3] in {1}; "),
    ],
)
def test_files_that_do_not_fit_are_refused_in_a_line(tmp_path: Path, other: dict[str, Tensor], said: str) -> None:
    paths = [write(tmp_path / "here", {"a": torch.zeros(2, 3)}), write(tmp_path / "there", other)]
    with pytest.raises(TrialError) as caught, opened_alike(paths):
        pass
    expected = "expected weights of one architecture; leave one of them out"
    assert str(caught.value) == said.format(*paths) + expected


def test_the_order_in_a_file_does_not_matter(tmp_path: Path) -> None:
    """Another writer may lay the same tensors out in another order."""
    first = write(tmp_path / "first", {"a": torch.tensor([1.0]), "b": torch.tensor([10.0])})
    header = (
        b'{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    )
    second = tmp_path / "second"
    numbers = torch.tensor([30.0, 3.0]).numpy().tobytes()
    second.write_bytes(len(header).to_bytes(8, "little") + header + numbers)
    with opened_alike([first, second]) as files:
        found = in_memory(files[0], combined(files, mean))
    assert found == {"a": torch.tensor([2.0]), "b": torch.tensor([20.0])}


def test_what_is_no_file_of_weights_is_damaged(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", {"a": torch.zeros(100)}).read_bytes()
    path = tmp_path / "weights"
    for content in (b"", b"{}", whole[:-1], whole + b"x", whole[:40]):
        path.write_bytes(content)
        with pytest.raises(Damaged, match=f"{path}: damaged"):
            StoredWeights(path)
    with pytest.raises(Damaged, match="it is gone"):
        StoredWeights(tmp_path / "none")


def test_a_file_cut_short_while_it_is_read_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "weights", {"a": torch.zeros(100)})
    with opened_alike([path]) as (file,):
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(Damaged, match="cut short"):
            file.read("a", slice(0, 100))


def test_numbers_without_a_known_mean_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "weights", {"wave": torch.zeros(3, dtype=torch.complex64)})
    with pytest.raises(TrialError, match=f"{path}: tensor wave is C64, expected one of F64, F32, "):
        StoredWeights(path)
