"""A score is what a trial itself found on the selection split, and a brute-force count on the test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trials import Recipe, run_trial
from trials.checkpoint import write_weights
from trials.data import load_splits
from trials.errors import DataError, TrialError
from trials.fit.evaluate import wilson_interval
from trials.model.build import build_model
from trials.score import score_weights


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    generator = np.random.default_rng(0)
    table = generator.normal(0, 1, (300, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=table, y=(table[:, 0] + 0.5 * generator.normal(0, 1, 300) > 0).astype(int))
    return Recipe.model_validate(
        {
            "data": {"source": f"npz:{tmp_path / 'data.npz'}"},
            "model": {"build": "mlp", "width": 8, "dropout": 0.3},
            "train": {"epochs": 2, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}, "ema": {}},
        }
    )


def test_the_selection_score_is_the_trials_own(tmp_path: Path, recipe: Recipe) -> None:
    result = run_trial(recipe, tmp_path / "trial", device="cpu")
    for kept in result.weights:
        score = score_weights(recipe, tmp_path / "trial" / kept.path, "selection", "cpu")
        assert score["selection.loss"] == kept.metrics["validation.loss"]
        assert score["selection.accuracy"] == kept.metrics["validation.accuracy"]


def test_what_is_set_aside_is_scored_too_and_counts_for_nothing(tmp_path: Path, recipe: Recipe) -> None:
    """The trial's own numbers are those of a score, each over its own examples."""
    parted = recipe.model_copy(update={"data": recipe.data.model_copy(update={"validation": 0.3, "confirm": 0.5})})
    result = run_trial(parted, tmp_path / "trial", device="cpu")
    splits = load_splits(parted.data, torch.device("cpu"))
    assert splits.confirm is not None
    counts = {"selection": len(splits.selection), "confirm": len(splits.confirm)}
    for kept in result.weights:
        for split, name in (("selection", "validation"), ("confirm", "confirm")):
            score = score_weights(parted, tmp_path / "trial" / kept.path, split, "cpu")  # type: ignore[arg-type]
            assert score[f"{split}.count"] == counts[split]
            own = {metric: value for metric, value in kept.metrics.items() if metric.startswith(f"{name}.")}
            assert own == {f"{name}.{key}": score[f"{split}.{key}"] for key in SCORES}
        assert kept.metrics["confirm.loss"] != kept.metrics["validation.loss"]
    best = [kept.metrics["validation.accuracy"] for kept in result.weights]
    assert best == sorted(best, reverse=True)
    with pytest.raises(DataError, match=r"npz:.*: no examples are set aside; expected data\.confirm above 0"):
        score_weights(recipe, tmp_path / "trial" / result.weights[0].path, "confirm", "cpu")


SCORES = ("loss", "accuracy", "balanced_accuracy", "top5_accuracy")


def test_the_test_score_is_a_count_over_the_test_split_with_its_interval(tmp_path: Path, recipe: Recipe) -> None:
    result = run_trial(recipe, tmp_path / "trial", device="cpu")
    path = tmp_path / "trial" / result.weights[0].path
    splits = load_splits(recipe.data, torch.device("cpu"))
    model = build_model(recipe.model, splits.preprocess.spec, 2).eval()
    model.load_state_dict(load_file(path))
    correct = sum(
        int(model(splits.preprocess.normalise(row[None])).argmax()) == int(target)
        for row, target in zip(splits.test.inputs, splits.test.targets, strict=True)
    )
    count = len(splits.test)
    low, high = wilson_interval(correct, count)
    score = score_weights(recipe, path, "test", "cpu")
    assert score.pop("test.loss") > 0
    assert 0 < score.pop("test.balanced_accuracy") < 1
    assert [score.pop(f"test.top5_accuracy{end}") for end in ("", ".high")] == [1.0, 1.0]  # there are two classes
    assert score.pop("test.top5_accuracy.low") == wilson_interval(count, count)[0]
    assert score == {
        "test.accuracy": correct / count,
        "test.accuracy.low": low,
        "test.accuracy.high": high,
        "test.count": count,
    }


def test_weights_that_are_missing_broken_or_of_another_model_are_named(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(TrialError, match=r"nowhere\.safetensors: cannot be read as weights"):
        score_weights(recipe, tmp_path / "nowhere.safetensors", "test", "cpu")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 5)
    with pytest.raises(TrialError, match=r"broken\.safetensors: cannot be read as weights"):
        score_weights(recipe, tmp_path / "broken.safetensors", "test", "cpu")
    write_weights(tmp_path / "other.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(TrialError, match="mlp: these weights are of another model") as caught:
        score_weights(recipe, tmp_path / "other.safetensors", "test", "cpu")
    assert "\n" not in str(caught.value)
