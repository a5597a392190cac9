"""Splits made by hand, for tests of what trains and judges on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trials.data import Split, Splits, Target
from trials.data.preprocess import ArrayPreprocess
from trials.recipe import Recipe


def features(count: int, mean: float = 0.0, std: float = 1.0) -> ArrayPreprocess:
    """Plain features, each less ``mean`` and through ``std``."""
    return ArrayPreprocess(kind="features", shape=(count,), scale=1.0, mean=(mean,) * count, std=(std,) * count)


def splits_of(split: Split, preprocess: ArrayPreprocess | None = None, target: Target | None = None) -> Splits:
    """All three splits are ``split``; classes as they occur, unless a ``target`` says otherwise."""
    if target is None:
        counts = torch.bincount(split.targets)
        target = Target("classification", tuple(str(index) for index in range(len(counts))), tuple(counts.tolist()))
    return Splits(split, split, split, preprocess or features(split.inputs.shape[1]), target, digest="")


def numbers_target(mean: float = 0.0, std: float = 1.0) -> Target:
    """A number to predict, standardised by ``mean`` and ``std``."""
    return Target("regression", mean=mean, std=std)


def recipe_of(train: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """A recipe whose data and model nobody loads."""
    content = {"data": {"source": "digits", **(data or {})}, "model": {"build": "linear"}, "train": train or {}}
    return Recipe.model_validate(content | sections)


def random_split(count: int, width: int, classes: int) -> Split:
    """``count`` rows of noise, with random labels."""
    generator = torch.Generator().manual_seed(count)
    inputs: Tensor = torch.randn(count, width, generator=generator)
    return Split(inputs, torch.randint(classes, (count,), generator=generator))
