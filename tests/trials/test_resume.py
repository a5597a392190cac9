"""A trial that is asked to stop between any two updates goes on from there and ends with the same bytes."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trials import EpochReport, Interrupted, Recipe, TrialError, TrialResult, run_trial
from trials.checkpoint import TrialFolder
from trials.fit.step import steps_per_epoch

EPOCHS, EXAMPLES = 3, 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures, and a table of sixty rows, to train on."""
    folder = tmp_path_factory.mktemp("data")
    draws = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = draws.integers(0, 120, (90, 6, 6, 1), dtype=np.uint8)
    for label in range(3):
        images[labels == label, 2 * label : 2 * label + 2] += 60
    np.savez(folder / "pictures.npz", x_train=images[:75], y_train=labels[:75], x_test=images[75:], y_test=labels[75:])
    words = np.array(["good", "fine", "bad", "poor", "film", "book"])
    rooms = draws.integers(1, 9, 90)
    columns = {
        "rooms": rooms,
        "words": [" ".join(draws.choice(words, draws.integers(1, 9))) for _ in range(90)],
        "price": 100.0 * rooms + draws.normal(0, 30, 90),
        "kind": [("house", "flat")[count % 2] for count in range(90)],
    }
    pd.DataFrame(columns).to_csv(folder / "table.csv", index=False)
    return folder


SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
RECIPES: dict[str, dict[str, Any]] = {
    # Nine batches in groups of two: the last group is short.
    "pictures": {
        "data": {"source": "npz:DATA/pictures.npz", "augment": ["random_crop", "horizontal_flip"], "mix": "mixup"},
        "model": {"build": "small_convnet", "width": 4, "depth": 1, "dropout": 0.2},
        "train": {
            "batch_size": 7,
            "accumulate": 2,
            "optimizer": SGD,
            "schedule": {"name": "one_cycle"},
            "clip_norm": 0.5,
            "ema": {"decay": 0.9},
            "swa": {"start": 0.3},
        },
        "average": {"best_n": 2},
    },
    "fp16, a range test and a stop": {
        "data": {"source": "npz:DATA/pictures.npz"},
        "model": {"build": "mlp", "width": 8, "depth": 1, "dropout": 0.2},
        "train": {
            "batch_size": 16,
            "micro_batch": 5,
            "precision": "fp16",
            "optimizer": SGD,
            "lr_finder": {"steps": 12, "start": 1e-4, "end": 10.0},
            "early_stop": {"patience_epochs": 1},
        },
    },
    "texts": {
        "data": {
            "source": "csv:DATA/table.csv",
            "target": "kind",
            "text": "words",
            "max_tokens": 8,
            "augment": ["random_deletion", "random_swap"],
        },
        "model": {"build": "text_gru", "width": 8, "hidden": 6, "embedding_dropout": 0.2, "dropout": 0.1},
        "train": {"batch_size": 16, "optimizer": {"name": "adamw", "lr": 0.01}, "clip_norm": 1.0},
    },
    "a table": {
        "data": {"source": "csv:DATA/table.csv", "target": "price", "task": "regression", "drop": ["words"]},
        "model": {"build": "mlp", "width": 8, "norm": "batch", "dropout": 0.3},
        "train": {"batch_size": 16, "optimizer": {"name": "muon", "lr": 0.01}, "swa": {"start": 0.0}},
    },
}


def recipe_of(name: str, data: Path) -> Recipe:
    content = RECIPES[name]
    source = content["data"]["source"].replace("DATA", str(data))
    return Recipe.model_validate(
        {
            **content,
            "seed": 3,
            "data": {**content["data"], "source": source, "validation": 0.2},
            "train": {**content["train"], "epochs": EPOCHS},
        }
    )


Curve = dict[int, dict[str, float]]


def train(recipe: Recipe, folder: Path, curve: Curve, stop: Callable[[], bool] = lambda: False) -> TrialResult:
    """What is told of an epoch must be the same each time."""

    def hear(report: EpochReport) -> bool:
        assert curve.setdefault(report.epoch, report.metrics) == report.metrics
        return True

    return run_trial(recipe, folder, hear, "cpu", stop)


def after(asked: int) -> Callable[[], bool]:
    """Stop at that question, the first of which comes before the first update."""
    left = iter(range(asked))
    return lambda: next(left, None) is None


def outcome(result: TrialResult, folder: Path, curve: Curve) -> tuple[TrialResult, dict[str, str], Curve]:
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "weights").iterdir()}
    return result.model_copy(update={"seconds": 0.0}), digests, curve


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_between_any_two_updates_it_ends_as_if_it_had_never_stopped(
    name: str, data: Path, tmp_path: Path
) -> None:
    recipe, whole, curve = recipe_of(name, data), tmp_path / "whole", Curve()
    expected = outcome(train(recipe, whole, curve), whole, curve)

    places, broken, again = [], tmp_path / "broken", Curve()
    while True:
        random.seed(len(places))  # what the caller draws in between makes no difference
        np.random.seed(len(places))
        try:
            result = train(recipe, broken, again, after(1))
        except Interrupted as interrupted:
            places.append((interrupted.epoch, interrupted.step))
            assert len(list(broken.glob("checkpoints/*"))) <= 2
            continue
        break
    steps = steps_per_epoch(EXAMPLES, recipe.train)
    assert places == [(epoch, step) for epoch in expected[2] for step in range(steps + 1)][1:]
    assert outcome(result, broken, again) == expected


def test_seconds_add_up_over_interruptions(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by one second each time that it is read."""
    recipe, told = recipe_of("texts", data), []
    clock = itertools.count()
    monkeypatch.setattr("trials.train.time.perf_counter", lambda: float(next(clock)))
    for asked in (1, 1):
        with pytest.raises(Interrupted):
            run_trial(recipe, tmp_path, device="cpu", stop=after(asked))
    run_trial(recipe, tmp_path, lambda report: told.append(report.seconds) is None, "cpu")
    # One second up to each interruption, and two to the end of an epoch: before its checkpoint and after.
    assert told == [4.0, 2.0, 2.0]


def test_a_stop_before_the_first_update_leaves_nothing_and_before_the_next_epoch_its_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    recipe, folder = recipe_of("texts", data), TrialFolder(tmp_path)
    with pytest.raises(
        Interrupted, match=r"^interrupted before epoch 1; it goes on from there when it is started"
    ) as at:
        run_trial(recipe, tmp_path, device="cpu", stop=lambda: True)
    assert (at.value.epoch, at.value.step) == (1, 0)
    assert not folder.checkpoints.exists()
    with pytest.raises(Interrupted, match=r"^interrupted in epoch 1 after 2 of its updates; ") as at:
        run_trial(recipe, tmp_path, device="cpu", stop=after(2))
    assert [path.name for path in folder.checkpoints.iterdir()] == ["epoch-0001-step-000002"]
    again = pickle.loads(pickle.dumps(at.value))
    assert (str(again), again.epoch, again.step) == (str(at.value), 1, 2)
    with pytest.raises(Interrupted) as at:
        run_trial(recipe, tmp_path, device="cpu", stop=lambda: True)
    assert (at.value.epoch, at.value.step) == (1, 2)


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(data: Path, tmp_path: Path) -> None:
    """A recipe that cannot be read says nothing; the checkpoint says of which it is."""
    recipe, other = recipe_of("texts", data), recipe_of("texts", data).model_copy(update={"seed": 4})
    with pytest.raises(Interrupted):
        run_trial(recipe, tmp_path, device="cpu", stop=after(2))
    (tmp_path / "recipe.json").write_text('{"data": ')
    with pytest.raises(TrialError, match="checkpoints: another recipe's trial; use a new folder"):
        run_trial(other, tmp_path, device="cpu")
