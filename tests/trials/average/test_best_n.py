"""A3: the mean of files equals the arithmetic mean. What of them is in memory at a time: test_soup.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from trials.average.best_n import best_epochs, mean_weights


def write_files(folder: Path, count: int) -> list[Path]:
    generator = torch.Generator().manual_seed(0)
    paths = [folder / f"{number}.safetensors" for number in range(count)]
    for number, path in enumerate(paths):
        weights = {
            "conv": torch.randn(4, 3, 3, 3, generator=generator) * 1e3,
            "half": torch.randn(5, generator=generator).half(),
            "scalar": torch.tensor(float(number)),
            "counter": torch.tensor(10 * number),
        }
        save_file(weights, path)
    return paths


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_mean_is_the_arithmetic_mean_rounded_once(tmp_path: Path, count: int) -> None:
    paths = write_files(tmp_path, count)
    mean = mean_weights(paths)
    files = [safetensors.torch.load_file(path) for path in paths]
    for name in ("conv", "half", "scalar"):
        exact = torch.stack([file[name].double() for file in files]).sum(0) / count
        assert torch.equal(mean[name], exact.to(files[0][name].dtype))
        assert mean[name].dtype == files[0][name].dtype
    assert mean["counter"] == 10 * (count - 1)  # from the last file, never 0.5 of a batch


def test_best_epochs_by_value_with_the_earlier_of_equals() -> None:
    values = [0.3, 0.9, 0.5, 0.9, 0.4]
    assert best_epochs(values, "validation.accuracy", 3) == (2, 3, 4)
    assert best_epochs(values, "validation.loss", 2) == (1, 5)
    assert best_epochs([0.5, 0.5, 0.5], "validation.accuracy", 2) == (1, 2)
    assert best_epochs([0.5], "validation.accuracy", 3) == (1,)
