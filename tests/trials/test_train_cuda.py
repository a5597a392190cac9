"""What `test_train.py` shows on a CPU, on a GPU. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sweeper.runner import held_bytes
from trials import EpochReport, Recipe, load_model, run_trial
from trials.data import load_splits
from trials.examples import load_examples
from trials.package import write_package
from trials.score import score_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PRECISIONS = ["fp32", "tf32", "bf16", "fp16"]


def _recipe(precision: str, resident: str = "auto", **train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "seed": 11,
            "data": {
                "source": "digits",
                "augment": [{"name": "random_crop", "padding": 1}],
                "mix": "mixup",
                "resident": resident,
            },
            "model": {"build": "small_resnet", "width": 8, "dropout": 0.1},
            "train": {
                "epochs": 3,
                "batch_size": 64,
                "accumulate": 2,
                "optimizer": {"name": "adamw", "lr": 0.01},
                "schedule": {"name": "one_cycle"},
                "precision": precision,
                "clip_norm": 1.0,
                "ema": {"decay": 0.95},
                "swa": {"start": 0.5},
                **train,
            },
            "average": {"best_n": 2},
        }
    )


def _weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "weights").iterdir()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_recipe_gives_the_same_bytes(precision: str, tmp_path: Path) -> None:
    results = [run_trial(_recipe(precision), tmp_path / name, device="cuda") for name in ("first", "second")]
    assert _weights(tmp_path / "first") == _weights(tmp_path / "second")
    assert results[0].device == torch.cuda.get_device_name()
    assert results[0].peak_memory_bytes > 0
    assert results[0].weights[0].metrics["validation.accuracy"] > 0.8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trial_killed_after_any_epoch_continues_bit_for_bit(precision: str, tmp_path: Path) -> None:
    recipe = _recipe(precision)
    run_trial(recipe, tmp_path / "whole", device="cuda")
    for last in (1, 2, 3):

        def die(report: EpochReport, last: int = last) -> bool:
            if report.epoch == last:
                raise KeyboardInterrupt
            return True

        with pytest.raises(KeyboardInterrupt):
            run_trial(recipe, tmp_path / str(last), die, "cuda")
        run_trial(recipe, tmp_path / str(last), device="cuda")
        assert _weights(tmp_path / str(last)) == _weights(tmp_path / "whole")


def test_what_a_gpu_trained_is_worth_the_same_on_a_cpu(tmp_path: Path) -> None:
    recipe = _recipe("fp32")
    result = run_trial(recipe, tmp_path / "trial", device="cuda")
    path = tmp_path / "trial" / result.weights[0].path
    scores: list[dict[str, Any]] = [dict(score_weights(recipe, path, "test", device)) for device in ("cuda", "cpu")]
    assert scores[0]["test.loss"] == pytest.approx(scores[1]["test.loss"], rel=1e-4)
    write_package(tmp_path / "package", recipe, path, load_examples(recipe, torch.device("cpu")))
    model, preprocess = load_model(tmp_path / "package", device="cuda")
    test = load_splits(recipe.data, torch.device("cpu")).test
    raw = test.inputs.permute(0, 2, 3, 1).squeeze(-1).numpy()
    with torch.no_grad():
        hits = int((model(preprocess(raw).cuda()).argmax(dim=1).cpu() == test.targets).sum())
    assert hits / len(test) == pytest.approx(scores[0]["test.accuracy"], abs=1 / len(test))


def test_data_on_the_host_train_the_same_bytes(tmp_path: Path) -> None:
    """What fits on a GPU depends on what else is there, and must make no difference."""
    device = torch.device("cuda")
    for resident, type_ in (("device", "cuda"), ("host", "cpu")):
        assert load_splits(_recipe("fp32", resident).data, device).train.inputs.device.type == type_
        run_trial(_recipe("fp32", resident), tmp_path / resident, device="cuda")
    assert _weights(tmp_path / "device") == _weights(tmp_path / "host")


@pytest.mark.slow
@pytest.mark.parametrize("option", [{"channels_last": False}, {"compile": True}], ids=lambda option: next(iter(option)))
def test_speed_options_change_nothing_but_rounding(option: dict[str, Any], tmp_path: Path) -> None:
    plain = run_trial(_recipe("fp32", epochs=1), tmp_path / "plain", device="cuda")
    changed = run_trial(_recipe("fp32", epochs=1, **option), tmp_path / "changed", device="cuda")
    ours, theirs = ({file.kind: file.metrics for file in result.weights} for result in (plain, changed))
    assert ours["raw"]["validation.loss"] == pytest.approx(theirs["raw"]["validation.loss"], rel=1e-3)


def test_a_trial_leaves_no_memory_behind_but_its_data(tmp_path: Path) -> None:
    run_trial(_recipe("fp32"), tmp_path / "first", device="cuda")
    held = held_bytes()
    for name in ("second", "third"):
        run_trial(_recipe("fp32"), tmp_path / name, device="cuda")
        assert held_bytes() == held
