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


def trunk_step(recipe: Recipe, number: int, study_seed: int, fresh: int = 0) -> Step:
    """The trunk of a trial's group, trained by that trial's recipe at a steady learning rate.

    Args:
        recipe: of the trial.
        number: of the trial.
        study_seed: of the study.
        fresh: which of the fresh seeds it is trained from; 0 for the study's own.
    """
    schedule = Constant(name="constant", warmup=0.5 / recipe.average.trunk_epochs)
    model = recipe.model
    start = model.pretrained
    if start is not None and (start.unfreeze_after_epochs or 0) >= recipe.average.trunk_epochs:
        # What would thaw later thaws in the branches, which count from the same beginning.
        model = model.model_copy(update={"pretrained": start.model_copy(update={"unfreeze_after_epochs": None})})
    no_averages = {"ema": None, "swa": None, "early_stop": None, "lr_finder": None, "pictures": False}
    train = recipe.train.model_copy(update={"epochs": recipe.average.trunk_epochs, "schedule": schedule, **no_averages})
    seed = derive_seed(study_seed, "trunk", group(recipe), fresh)
    average = recipe.average.model_copy(update={"best_n": 0, "trunk_epochs": 0})
    trunk = recipe.model_copy(update={"seed": seed, "model": model, "train": train, "average": average})
    return Step("trunk", {"trunk": group(recipe), "of": number, "seed": fresh}, trunk)


def branched(recipe: Recipe, trunk: Start) -> Recipe:
    """The recipe of a trial that goes on from a trunk with what is left of its epochs."""
    train = recipe.train.model_copy(update={"epochs": recipe.train.epochs - recipe.average.trunk_epochs})
    return recipe.model_copy(update={"train": train, "start": trunk})
