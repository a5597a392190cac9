"""What is kept at the end of a trial has a worth that can be written down and read back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from trials.checkpoint import Checkpoint, TrialFolder
from trials.data import load_splits
from trials.fit.fitting import Fitting
from trials.history import History
from trials.keep import keep_weights
from trials.model.build import build_model
from trials.recipe import Recipe, Swa
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
