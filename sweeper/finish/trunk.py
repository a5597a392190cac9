"""Trunks: the first epochs that all trials of one architecture share, trained once.

A trunk is a trial of its own, trained by the recipe of the first trial that needs it. Where that recipe diverges, so
does the trial it is of, and the next one that needs a trunk tries with its own.
"""

from __future__ import annotations

import hashlib
import json

from sweeper.finish.alike import architecture
from sweeper.finish.board import Step
from trials.recipe import Constant, Recipe, Start
from trials.seed import derive_seed


def group(recipe: Recipe) -> str:
    """What trials have in common that may branch from one trunk: model, data, length of the trunk."""
    shared = [architecture(recipe), recipe.average.trunk_epochs]
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]


def trunk_seed(study_seed: int, key: str, fresh: int) -> int:
    """The seed of the trunk of the group ``key``: of the study's own with ``fresh`` 0, else of a fresh one."""
    return derive_seed(study_seed, "trunk", key, fresh)


def trunk_step(recipe: Recipe, number: int, study_seed: int) -> Step:
    """The trunk of a trial's group, trained by the recipe of the trial ``number`` at a steady learning rate."""
    key = group(recipe)
    schedule = Constant(name="constant", warmup=0.5 / recipe.average.trunk_epochs)
    model = recipe.model
    start = model.pretrained
    if start is not None and (start.unfreeze_after_epochs or 0) >= recipe.average.trunk_epochs:
        # What would thaw later thaws in the branches, which count from the same beginning.
        model = model.model_copy(update={"pretrained": start.model_copy(update={"unfreeze_after_epochs": None})})
    no_averages = {"ema": None, "swa": None, "early_stop": None, "lr_finder": None, "pictures": False}
    train = recipe.train.model_copy(update={"epochs": recipe.average.trunk_epochs, "schedule": schedule, **no_averages})
    seed = trunk_seed(study_seed, key, 0)
    average = recipe.average.model_copy(update={"best_n": 0, "trunk_epochs": 0})
    trunk = recipe.model_copy(update={"seed": seed, "model": model, "train": train, "average": average})
    return Step("trunk", {"trunk": key, "of": number, "seed": 0}, trunk)


def branched(recipe: Recipe, trunk: Start) -> Recipe:
    """The recipe of a trial that goes on from a trunk with what is left of its epochs."""
    train = recipe.train.model_copy(update={"epochs": recipe.train.epochs - recipe.average.trunk_epochs})
    return recipe.model_copy(update={"train": train, "start": trunk})
