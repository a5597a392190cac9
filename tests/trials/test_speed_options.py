"""F11: what only changes the speed changes no result beyond rounding, and continues bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trials import EpochReport, Recipe, run_trial
from trials.errors import TrialError


def recipe_of(model: dict[str, Any], **train: Any) -> Recipe:
    content = {
        "data": {"source": "digits", "train_fraction": 0.3},
        "model": model,
        "train": {"epochs": 2, "batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.05}, "ema": {}, **train},
    }
    return Recipe.model_validate(content)


CONVNET = {"build": "small_convnet", "width": 8}
MLP = {"build": "mlp", "width": 16, "norm": "batch"}


def assert_alike(one: Path, other: Path) -> None:
    """All kept weights agree to rounding, which training multiplies a little."""
    for path in (one / "weights").iterdir():
        twin = load_file(other / "weights" / path.name)
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(tensor, twin[name], rtol=1e-3, atol=1e-5)


def test_the_layout_of_images_in_memory_changes_nothing_but_rounding(tmp_path: Path) -> None:
    results = [
        run_trial(recipe_of(CONVNET, channels_last=on), tmp_path / str(on), device="cpu") for on in (True, False)
    ]
    assert_alike(tmp_path / "True", tmp_path / "False")
    first, second = ({file.kind: file.metrics for file in result.weights} for result in results)
    for kind, metrics in first.items():
        assert metrics["validation.loss"] == pytest.approx(second[kind]["validation.loss"], rel=1e-4)


@pytest.mark.slow
def test_a_compiled_model_trains_alike_and_continues_bit_for_bit(tmp_path: Path) -> None:
    """The last batch has a size of its own; a trial of another model comes in between."""

    def die(report: EpochReport) -> bool:
        raise KeyboardInterrupt

    recipe = recipe_of(MLP, compile=True)
    run_trial(recipe_of(MLP), tmp_path / "plain", device="cpu")
    run_trial(recipe, tmp_path / "compiled", device="cpu")
    assert_alike(tmp_path / "compiled", tmp_path / "plain")
    with pytest.raises(KeyboardInterrupt):
        run_trial(recipe, tmp_path / "broken", die, "cpu")
    run_trial(recipe_of(MLP | {"width": 8}, compile=True), tmp_path / "other", device="cpu")
    run_trial(recipe, tmp_path / "broken", device="cpu")
    for path in (tmp_path / "compiled" / "weights").iterdir():
        assert path.read_bytes() == (tmp_path / "broken" / "weights" / path.name).read_bytes()


def test_a_missing_compiler_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "/nowhere/g++"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # nothing compiled before may be found
    with pytest.raises(
        TrialError, match=r"train\.compile: the model cannot be compiled here .*set it to false"
    ) as caught:
        run_trial(recipe_of({"build": "mlp", "width": 23}, compile=True), tmp_path / "trial", device="cpu")
    assert "\n" not in str(caught.value)
