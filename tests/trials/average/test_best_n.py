"""A3: the mean of files equals the arithmetic mean, in the memory of one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from trials.average import best_n
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


def test_one_tensor_of_one_file_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tensor is let go before the next is read: only the mean itself grows."""
    import gc
    import weakref

    paths = write_files(tmp_path, 5)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    real_open = safetensors.safe_open

    class Watched:
        def __init__(self, path: Path, framework: str) -> None:
            self.file = real_open(path, framework=framework)

        def __enter__(self) -> Watched:
            self.file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self.file.__exit__(*error)

        def keys(self) -> list[str]:
            names: list[str] = self.file.keys()
            return names

        def get_tensor(self, name: str) -> torch.Tensor:
            nonlocal most
            gc.collect()
            tensor: torch.Tensor = self.file.get_tensor(name)
            alive.append(weakref.ref(tensor))
            most = max(most, sum(reference() is not None for reference in alive))
            return tensor

    monkeypatch.setattr(best_n.safetensors, "safe_open", Watched)
    gc.freeze()  # what the tests before left is not worth a look at each collection
    try:
        mean_weights(paths)
    finally:
        gc.unfreeze()
    assert len(alive) >= 5 * 3
    assert most <= 4  # the last file's tensor, the one being added, its predecessor, a counter kept as it was


def test_best_epochs_by_value_with_the_earlier_of_equals() -> None:
    values = [0.3, 0.9, 0.5, 0.9, 0.4]
    assert best_epochs(values, "validation.accuracy", 3) == (2, 3, 4)
    assert best_epochs(values, "validation.loss", 2) == (1, 5)
    assert best_epochs([0.5, 0.5, 0.5], "validation.accuracy", 2) == (1, 2)
    assert best_epochs([0.5], "validation.accuracy", 3) == (1,)
