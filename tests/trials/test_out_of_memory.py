"""A trial that does not fit goes on with a smaller micro-batch, in the same folder, and leaves nothing behind."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Any

import pytest
import short_of_memory

from sweeper.runner import Completed, Failed, Job, Reported, Runner
from trials import EpochReport, Recipe, TrialResult, run_trial
from trials.errors import OutOfMemory
from trials.fit.micro_batch import smaller_micro_batch

FITS = 8


def recipe_of(fits: int = FITS, error: str = "device", epochs: int = 3, **train: Any) -> Recipe:
    section = {"epochs": epochs, "batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.1}, "ema": {"decay": 0.9}}
    build = {"build": "short_of_memory:net", "arguments": {"fits": fits, "error": error}}
    return Recipe.model_validate(
        {"data": {"source": "digits", "train_fraction": 0.2}, "model": build, "train": section | train}
    )


def smaller(recipe: Recipe) -> Recipe | None:
    micro_batch = smaller_micro_batch(recipe)
    if micro_batch is None:
        return None
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"micro_batch": micro_batch})})


def weights(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "weights").iterdir()}


@pytest.mark.parametrize("error", ["device", "host"])
def test_half_as_many_at_once_until_they_fit(error: str, tmp_path: Path) -> None:
    recipe: Recipe | None = recipe_of(error=error)
    tried = []
    while recipe is not None:
        tried.append(recipe.train.micro_batch)
        try:
            result = run_trial(recipe, tmp_path / "trial", device="cpu")
            break
        except OutOfMemory:
            recipe = smaller(recipe)
    assert tried == [None, 32, 16, 8]
    plenty = run_trial(recipe_of(fits=1000), tmp_path / "plenty", device="cpu")
    for mine, theirs in zip(result.weights, plenty.weights, strict=True):
        assert mine.metrics == pytest.approx(theirs.metrics, abs=1e-4)


def test_where_not_even_one_fits_nothing_is_left_to_try(tmp_path: Path) -> None:
    recipe = recipe_of(fits=1, micro_batch=2)  # building tries two examples
    with pytest.raises(OutOfMemory, match=r"lower train\.micro_batch"):
        run_trial(recipe, tmp_path / "trial", device="cpu")
    assert recipe_of(micro_batch=1).train.micro_batch == smaller_micro_batch(recipe)
    assert smaller_micro_batch(recipe_of(micro_batch=1)) is None


class Killed(BaseException):
    pass


def run_until(recipe: Recipe, folder: Path, epoch: int | None) -> TrialResult | None:
    def report(told: EpochReport) -> bool:
        if told.epoch == epoch:
            raise Killed
        return True

    try:
        return run_trial(recipe, folder, report, "cpu")
    except Killed:
        return None


@pytest.mark.parametrize("before", [None, 8])
def test_a_trial_goes_on_with_another_micro_batch_bit_for_bit(before: int | None, tmp_path: Path) -> None:
    """Wherever it is cut off after the change, and as in a folder where the change was the only stop."""
    first, second = recipe_of(fits=1000, micro_batch=before), recipe_of(fits=1000, micro_batch=8)
    for name in ("once", "again"):
        assert run_until(first, tmp_path / name, epoch=1) is None
    assert run_until(second, tmp_path / "again", epoch=2) is None
    for name in ("once", "again"):
        result = run_until(second, tmp_path / name, epoch=None)
        assert result is not None
        assert result.epochs == 3
    assert weights(tmp_path / "once") == weights(tmp_path / "again")
    if before == 8:
        run_trial(second, tmp_path / "whole", device="cpu")
        assert weights(tmp_path / "whole") == weights(tmp_path / "once")


def test_a_worker_keeps_nothing_of_a_trial_that_did_not_fit(tmp_path: Path) -> None:
    short_of_memory.made.clear()
    runner = Runner()
    gc.collect()
    gc.disable()  # what only a collection would free is a network too many when the next trial begins
    try:
        event = runner.start(Job(1, recipe_of().model_dump_json(), str(tmp_path / "trial")))
        assert isinstance(event, Failed)
        assert event.kind == "out_of_memory"
        assert [reference() for reference in short_of_memory.made] == [None] * len(short_of_memory.made) != []
    finally:
        gc.enable()
    fitting = recipe_of(epochs=1, micro_batch=8)
    event = runner.start(Job(2, fitting.model_dump_json(), str(tmp_path / "fits")))
    assert isinstance(event, Reported)
    assert isinstance(runner.advance(True), Completed)
    runner.close()
