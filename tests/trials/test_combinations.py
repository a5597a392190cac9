"""Any combination resumes exactly: a matrix of recipes in which every pair of techniques meets at least once.

Each recipe is trained twice in one process: once unbroken, and once killed after every single epoch and continued. Both
must leave the same bytes. What trained before, in whatever order, must make no difference either (K1).
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trials import Diverged, EpochReport, Recipe, TrialResult, run_trial
from trials.checkpoint import write_weights
from trials.data import InputSpec
from trials.model import build_model
from trials.recipe import SmallConvnet
from trials.recipe.misfits import misfits

EPOCHS = 3

Option = dict[str, Any]
"""What one option of a factor changes in a recipe, by dotted path."""

FITTING: dict[str, list[Option]] = {
    "optimizer": [
        {"train.optimizer": {"name": "sgd", "lr": 0.05, "nesterov": True, "weight_decay": 1e-3}},
        {"train.optimizer": {"name": "adam", "lr": 0.003, "weight_decay": 1e-3, "decay_all": True}},
        {"train.optimizer": {"name": "adamw", "lr": 0.003}},
        {"train.optimizer": {"name": "nadam", "lr": 0.003}},
        {"train.optimizer": {"name": "radam", "lr": 0.003}},
        {"train.optimizer": {"name": "rmsprop", "lr": 0.001, "momentum": 0.5}},
        {"train.optimizer": {"name": "adagrad", "lr": 0.01}},
        {"train.optimizer": {"name": "muon", "lr": 0.01, "adamw_lr": 0.002}},
    ],
    "schedule": [
        {"train.schedule": {"name": "constant", "warmup": 0.2}},
        {"train.schedule": {"name": "step"}},
        {"train.schedule": {"name": "multi_step"}},
        {"train.schedule": {"name": "exponential"}},
        {"train.schedule": {"name": "cyclic", "cycles": 2, "halve": True}},
        {"train.schedule": {"name": "cosine"}},
        {"train.schedule": {"name": "cosine_restarts"}},
        {"train.schedule": {"name": "polynomial", "power": 2.0}},
        {"train.schedule": {"name": "one_cycle"}},
        {
            "train.schedule": {
                "name": "sequence",
                "parts": [
                    {"share": 0.2, "schedule": {"name": "polynomial"}},
                    {"share": 0.4, "schedule": {"name": "cosine"}, "top": 0.5},
                ],
            }
        },
    ],
    "precision": [{"train.precision": name} for name in ("fp32", "bf16", "fp16")],
    "gradient": [
        {},
        {"train.clip_norm": 0.5},
        {"train.clip_value": 0.01, "train.accumulate": 2},
        {"train.clip_norm": 0.5, "train.accumulate": 3},
    ],
    "average": [
        {},
        {"train.ema": {"decay": 0.9}},
        {"train.swa": {"start": 0.3}},
        {"train.ema": {"decay": 0.9, "warmup": False}, "train.swa": {"start": 0.0, "lr": None}, "average.best_n": 2},
        {"average.best_n": 2, "average.batch_norm_samples": 50},
    ],
    "stop": [
        {},
        {"train.early_stop": {"patience_epochs": 1}},
        {"train.lr_finder": {"steps": 12, "start": 1e-4, "end": 10.0}},
    ],
}
IMAGES: dict[str, list[Option]] = {
    "model": [
        {"model": {"build": "linear", "init": "xavier_normal"}},
        {"model": {"build": "mlp", "width": 12, "norm": "layer", "dropout": 0.2, "input_dropout": 0.1}},
        {"model": {"build": "small_convnet", "width": 4, "dropout": 0.2, "init": "orthogonal"}},
        {"model": {"build": "small_convnet", "width": 8, "norm": "group", "spatial_dropout": 0.2}},
        {"model": {"build": "small_resnet", "width": 4, "init": "kaiming_uniform"}},
        {"model": {"build": "small_resnet", "width": 4, "norm": "none", "init": "lecun_normal"}},
        {
            "model": {
                "build": "small_convnet",
                "width": 4,
                "pretrained": {
                    "weights": "START",
                    "freeze": ["stages.0"],
                    "unfreeze_after_epochs": 1,
                    "body_lr": 0.3,
                },
            }
        },
        {"model": {"build": "own_module:net", "init": "kaiming_normal"}, "data.image_size": 7},
    ],
    "loss": [
        {"train.loss": {"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": "balanced"}},
        {"train.loss": {"name": "focal", "gamma": 1.5}},
        {"train.loss": {"name": "bce", "class_weights": [1.0, 2.0, 3.0]}},
    ],
    "augment": [
        {"data.augment": [{"name": "random_crop", "padding": 1}, "horizontal_flip"]},
        {"data.augment": ["random_resized_crop", "vertical_flip"]},
        {"data.augment": ["rotation", "color_jitter", "erasing"]},
        {"data.augment": ["affine", {"name": "rand_augment", "magnitude": 12}]},
        {"data.augment": ["trivial_augment"]},
        {"data.augment": [{"name": "custom", "function": "own_module:brighter", "arguments": {"most": 20}}]},
    ],
    "mix": [{"data.mix": name} for name in ("none", "mixup", "cutmix", "mixup_or_cutmix")],
    "layout": [{}, {"train.channels_last": False, "data.train_fraction": 0.8, "data.confirm": 0.4}],
}
TABLES: dict[str, list[Option]] = {
    "model": [
        {"model": {"build": "linear", "init": "xavier_uniform"}},
        {"model": {"build": "mlp", "width": 8, "norm": "batch"}},
        {"model": {"build": "mlp", "width": 8, "norm": "group", "dropout": 0.3}},
    ],
    "task": [
        {"data.task": "regression", "data.target": "price", "train.loss": {"name": "mse"}},
        {"data.task": "regression", "data.target": "price", "train.loss": {"name": "huber", "delta": 0.5}},
        {"data.target": "kind", "metric": "validation.balanced_accuracy"},
    ],
    "mix": [{"data.mix": name} for name in ("none", "mixup")],
}
TEXTS: dict[str, list[Option]] = {
    "model": [
        {"model": {"build": "text_gru", "width": 8, "hidden": 6, "embedding_dropout": 0.2, "dropout": 0.1}},
        {"model": {"build": "text_gru", "width": 8, "hidden": 6, "depth": 2, "bidirectional": False}},
        {"model": {"build": "text_bag", "width": 8, "dropout": 0.1}},
        {"model": {"build": "text_transformer", "width": 8, "heads": 2, "depth": 1, "embedding_dropout": 0.1}},
    ],
    "augment": [
        {"data.augment": ["random_deletion", "random_swap"]},
        {
            "data.augment": [
                {"name": "random_insertion", "share": 0.3, "table": "SYNONYMS"},
                {"name": "synonym_replacement", "probability": 0.4, "table": "SYNONYMS"},
            ]
        },
        {"data.augment": [{"name": "back_translation", "there": "own_module:there", "back": "own_module:back"}]},
    ],
}
# Optimizers meet all schedules in the first world; the others would only repeat that.
UNPACED = {name: options for name, options in FITTING.items() if name != "schedule"}
WORLDS = {"images": IMAGES | FITTING, "tables": TABLES | UNPACED, "texts": TEXTS | UNPACED}


def pairwise(factors: dict[str, list[Option]], seed: int = 0) -> list[dict[str, int]]:
    """Rows (factor -> option) in which every two options of two factors meet; greedy, so a few more than needed."""
    draws, names = random.Random(seed), list(factors)
    open_pairs = {
        ((one, i), (other, j))
        for one, other in itertools.combinations(names, 2)
        for i in range(len(factors[one]))
        for j in range(len(factors[other]))
    }
    rows = []
    while open_pairs:
        best: tuple[int, dict[str, int]] = (0, {})
        seed_pair = min(open_pairs)
        for _ in range(30):
            row = {name: draws.randrange(len(factors[name])) for name in names} | dict(seed_pair)
            best = max(best, (len(open_pairs & pairs_of(row)), row), key=lambda found: found[0])
        open_pairs -= pairs_of(best[1])
        rows.append(best[1])
    return rows


def pairs_of(row: dict[str, int]) -> set[tuple[tuple[str, int], tuple[str, int]]]:
    return set(itertools.combinations(row.items(), 2))


def test_every_pair_of_options_meets() -> None:
    """The twin: all pairs counted one by one."""
    for factors in WORLDS.values():
        rows = pairwise(factors)
        for one, other in itertools.combinations(factors, 2):
            met = {(row[one], row[other]) for row in rows}
            assert met == set(itertools.product(range(len(factors[one])), range(len(factors[other]))))


def recipes(world: str, folder: Path) -> Iterator[Recipe]:
    """The matrix of one world, on its data in ``folder``."""
    factors = WORLDS[world]
    for number, row in enumerate(pairwise(factors)):
        content: dict[str, Any] = copy.deepcopy(bases(folder)[world]) | {"seed": number}
        for name, index in row.items():
            for path, value in factors[name][index].items():
                put(content, path, value)
        text = json.dumps(content).replace("SYNONYMS", str(folder / "synonyms.txt"))
        text = text.replace("START", str(folder / "start.safetensors"))
        yield Recipe.model_validate_json(text)


def put(content: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for part in sections:
        content = content.setdefault(part, {})
    content[name] = value


def bases(folder: Path) -> dict[str, dict[str, Any]]:
    train = {"epochs": EPOCHS, "batch_size": 16}
    table = {"source": f"csv:{folder / 'table.csv'}", "validation": 0.2, "drop": ["words"]}
    return {
        "images": {"data": {"source": f"npz:{folder / 'pictures.npz'}", "validation": 0.2}, "train": train},
        "tables": {"data": table, "train": train},
        "texts": {
            "data": {
                "source": f"csv:{folder / 'table.csv'}",
                "validation": 0.2,
                "target": "kind",
                "text": "words",
                "max_tokens": 8,
            },
            "train": train,
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small data of each kind, and a module of the user's own."""
    folder = tmp_path_factory.mktemp("worlds")
    draws = np.random.default_rng(0)
    labels = np.arange(110) % 3
    images = draws.integers(0, 120, (110, 8, 8, 3), dtype=np.uint8)
    for label in range(3):
        images[labels == label, 2 * label : 2 * label + 3] += 60
    np.savez(folder / "pictures.npz", x_train=images[:80], y_train=labels[:80], x_test=images[80:], y_test=labels[80:])
    words = np.array(["good", "fine", "bad", "poor", "film", "book", "story", "the"])
    rooms, town = draws.integers(1, 9, 110), draws.choice(["Rome", "Oslo", ""], 110)
    pd.DataFrame(
        {
            "rooms": rooms,
            "age": np.where(draws.random(110) < 0.1, np.nan, draws.normal(40, 9, 110)),
            "town": town,
            "words": [" ".join(draws.choice(words, draws.integers(1, 12))) for _ in range(110)],
            "price": 100.0 * rooms + draws.normal(0, 30, 110),
            "kind": [("house", "flat")[count % 2] for count in range(110)],
        }
    ).to_csv(folder / "table.csv", index=False)
    (folder / "synonyms.txt").write_text("good, fine\nbad, poor\nfilm, story, book\n")
    (folder / "own_module.py").write_text(OWN)
    torch.manual_seed(0)
    start = build_model(SmallConvnet(build="small_convnet", width=4), InputSpec("image", (3, 8, 8)), 3)
    write_weights(folder / "start.safetensors", start.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("SWEEPER_DATA", str(folder / "cache"))
        yield folder


OWN = """
import torch
from torch import nn

def net(num_classes):
    stem = [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1)]
    return nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(6, num_classes))

def brighter(inputs, generator, most):
    lift = torch.randint(most + 1, (len(inputs), 1, 1, 1), generator=generator)
    return (inputs + lift).clamp(max=255).to(inputs.dtype)

def there(texts):
    return [{"translation_text": text.upper()} for text in texts]

def back(texts):
    return [" ".join(reversed(text.lower().split())) for text in texts]
"""


def digests(folder: Path) -> dict[str, str]:
    """The weights that a trial left."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "weights").iterdir()}


def outcome(train: Callable[[], TrialResult], folder: Path) -> tuple[str, dict[str, str]]:
    """What came of a trial, its seconds apart, and the weights it left; a loss that ran away is an outcome too."""
    try:
        return train().model_copy(update={"seconds": 0.0}).model_dump_json(), digests(folder)
    except Diverged as error:
        return str(error), {}


def train_by_kills(recipe: Recipe, folder: Path) -> TrialResult:
    """Killed after each epoch, and continued each time."""
    for last in range(1, EPOCHS + 1):

        def die(report: EpochReport, last: int = last) -> bool:
            if report.epoch == last:
                raise KeyboardInterrupt
            return True

        try:
            return run_trial(recipe, folder, die, "cpu")
        except KeyboardInterrupt:
            continue
    return run_trial(recipe, folder, device="cpu")


PARTS = {"images": 8, "tables": 4, "texts": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("world", "part"), [(world, part) for world, parts in PARTS.items() for part in range(parts)])
def test_killed_after_every_epoch_each_combination_ends_as_if_it_had_never_stopped(
    world: str, part: int, folder: Path, tmp_path: Path
) -> None:
    ended = 0
    for number, recipe in enumerate(recipes(world, folder)):
        if number % PARTS[world] != part or list(misfits(recipe)):
            continue
        at_once, by_kills = tmp_path / f"{number}-whole", tmp_path / f"{number}-broken"
        whole = outcome(functools.partial(run_trial, recipe, at_once, device="cpu"), at_once)
        broken = outcome(functools.partial(train_by_kills, recipe, by_kills), by_kills)
        assert whole == broken, recipe.model_dump_json(exclude_defaults=True)
        ended += bool(whole[1])
    assert ended >= 8


@pytest.mark.slow
def test_another_process_in_another_order_trains_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """K1: alone or among others, first or last."""
    chosen = [recipe for world in WORLDS for recipe in list(recipes(world, folder))[::12] if not list(misfits(recipe))]
    assert len(chosen) > 12
    texts = [recipe.model_dump_json() for recipe in chosen]
    (tmp_path / "recipes.json").write_text(json.dumps(texts))
    script = """
import json, pathlib, sys
import torch
from trials import Recipe, run_trial
torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])
for number, text in reversed(list(enumerate(json.loads((folder / "recipes.json").read_text())))):
    run_trial(Recipe.model_validate_json(text), folder / f"there-{number}", device="cpu")
"""
    paths = os.pathsep.join([str(folder), str(Path.cwd())])
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, env=os.environ | {"PYTHONPATH": paths})
    for number, recipe in enumerate(chosen):
        run_trial(recipe, tmp_path / f"here-{number}", device="cpu")
        assert digests(tmp_path / f"here-{number}") == digests(tmp_path / f"there-{number}"), texts[number]
