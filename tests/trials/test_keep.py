"""What is kept at the end of a trial has a worth that can be written down and read back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trials.checkpoint import Checkpoint, TrialFolder
from trials.data import load_splits
from trials.fit.evaluate import evaluate
from trials.fit.fitting import Fitting
from trials.history import History
from trials.keep import confirm_metrics, keep_weights, kept_metrics
from trials.model.build import build_model
from trials.package import model_with_weights
from trials.recipe import Average, Recipe, Swa
from trials.result import TrialResult

CPU = torch.device("cpu")
RECIPE = Recipe.model_validate(
    {
        "data": {"source": "digits"},
        "model": {"build": "linear"},
        "train": {"epochs": 2, "ema": {"decay": 0.9}, "swa": {"start": 0.0}},
        "average": {"best_n": 2},
    }
)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize(
    "broken", [{"ema"}, {"best_n"}, {"swa"}, {"ema", "swa", "best_n"}, set()], ids=lambda kinds: "+".join(sorted(kinds))
)
def test_an_average_whose_loss_is_not_finite_is_not_kept(broken: set[str], value: float, tmp_path: Path) -> None:
    splits, where = load_splits(RECIPE.data, CPU), TrialFolder(tmp_path)
    fitting = Fitting(build_model(RECIPE.model, splits.preprocess.spec, 10), RECIPE, splits.target, 1, CPU)
    assert fitting.ema is not None
    assert fitting.swa is not None
    sound = {name: tensor.clone() for name, tensor in fitting.model.state_dict().items()}
    unsound = {name: torch.full_like(tensor, value) for name, tensor in sound.items()}
    if "ema" in broken:
        fitting.ema.model.load_state_dict(unsound)
    if "swa" in broken:
        fitting.swa.model.load_state_dict(unsound)
    where.save(Checkpoint(1, {"raw": unsound if "best_n" in broken else sound}, {}), best=[1])
    where.save(Checkpoint(2, {"raw": sound}, {}), best=[1, 2])
    # The raw weights are worth nothing, so that only what is broken is not kept.
    epoch = {f"validation.{kind}loss": 9.0 for kind in ("", "raw.", "ema.")}
    for name in ("accuracy", "balanced_accuracy", "top5_accuracy"):
        epoch |= {f"validation.{kind}{name}": 0.0 for kind in ("", "raw.", "ema.")}
    kept, notes = keep_weights(where, RECIPE, fitting, splits, History(RECIPE, [epoch, epoch], [1.0, 1.0]))

    assert {file.kind for file in kept} == {"raw", "ema", "swa", "best_n"} - broken
    assert {path.stem for path in where.weights.iterdir()} == {"raw", "ema", "swa", "best_n"} - broken
    assert list(notes) == [
        f"{kind} not kept: its validation loss is nan" for kind in ("ema", "swa", "best_n") if kind in broken
    ]
    result = TrialResult(
        epochs=2, weights=kept, parameters=1, seconds=1.0, device="cpu", peak_memory_bytes=0, notes=notes
    )
    where.finish(result)
    assert where.read_result() == result


def test_each_file_is_also_scored_on_what_is_set_aside(tmp_path: Path) -> None:
    """The twin: each file loaded again and evaluated. Of numbers too large to be one, nothing is written."""
    data = RECIPE.data.model_copy(update={"confirm": 0.5})
    recipe = RECIPE.model_copy(update={"data": data, "average": Average()})
    splits, where = load_splits(data, CPU), TrialFolder(tmp_path)
    assert splits.confirm is not None
    fitting = Fitting(build_model(recipe.model, splits.preprocess.spec, 10), recipe, splits.target, 1, CPU)
    assert fitting.ema is not None
    assert fitting.swa is not None
    for follower in (fitting.ema, fitting.swa):
        for parameter in follower.model.parameters():
            torch.nn.init.normal_(parameter)
    epoch = {f"validation.{kind}{name}": 9.0 for kind in ("", "raw.", "ema.") for name in NAMES}
    kept, _ = keep_weights(where, recipe, fitting, splits, History(recipe, [epoch, epoch], [1.0, 1.0]))
    assert len(kept) == 3
    for file in kept:
        model = model_with_weights(recipe, splits.preprocess.spec, 10, load_file(tmp_path / file.path))
        found = evaluate(model, splits.confirm, splits, recipe, CPU).metrics
        assert {name: file.metrics[f"confirm.{name}"] for name in NAMES} == found
        if file.kind != "raw":
            assert kept_metrics(model, recipe, splits, CPU) == file.metrics
    broken = model_with_weights(
        recipe, splits.preprocess.spec, 10, {"1.weight": torch.full((10, 64), math.inf), "1.bias": torch.zeros(10)}
    )
    assert "confirm.loss" not in confirm_metrics(broken, recipe, splits, CPU)
    assert confirm_metrics(broken, recipe, replace(splits, confirm=None), CPU) == {}


NAMES = ("loss", "accuracy", "balanced_accuracy", "top5_accuracy")


def test_swa_that_no_epoch_reached_is_said_to_be_missing(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"epochs": 9, "swa": Swa(start=0.5)})})
    splits, where = load_splits(recipe.data, CPU), TrialFolder(tmp_path)
    fitting = Fitting(build_model(recipe.model, splits.preprocess.spec, 10), recipe, splits.target, 1, CPU)
    for epoch in (1, 2):
        where.save(Checkpoint(epoch, {"raw": fitting.model.state_dict()}, {}), best=range(1, epoch + 1))
    names = ("loss", "accuracy", "balanced_accuracy", "top5_accuracy")
    entry = {f"validation.{kind}{name}": 0.0 for kind in ("", "raw.", "ema.") for name in names}
    kept, notes = keep_weights(where, recipe, fitting, splits, History(recipe, [entry, entry], [1.0, 1.0]))
    assert "swa" not in {file.kind for file in kept}
    assert "swa not made: training ended after epoch 2, before the first snapshot was due" in notes
