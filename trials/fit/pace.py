"""The learning rate of a whole trial: its schedule, the averaging phase of SWA, and what was added later."""

from __future__ import annotations

from trials.average.swa import first_averaged_epoch
from trials.fit.schedule import extension_factor, lr_factor
from trials.recipe import Recipe


def factor_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The share of the optimizer's learning rate to use at ``step`` (from 0) of the training, extensions apart.

    From SWA's first averaged epoch on it is SWA's constant share, if it has one.
    """
    train = recipe.train
    if train.swa is not None and train.swa.lr is not None:
        first = first_averaged_epoch(train.swa, train.epochs)
        if step >= (first - 1) * steps_per_epoch:
            return train.swa.lr
    return lr_factor(train.schedule, step, train.epochs * steps_per_epoch)


def extended_factor_at(recipe: Recipe, number: int, step: int, steps_per_epoch: int) -> float:
    """The same at ``step`` (from 0) of extension ``number`` (from 0)."""
    extension = recipe.extensions[number]
    return extension_factor(extension, step, extension.epochs * steps_per_epoch)
