"""What a study names: files, taken from the folder of the study file wherever the trials run, and registered models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sweeper import positions
from sweeper.space import Space
from trials.recipe.model import is_weights_path

FILES = ("npz", "folder", "csv", "parquet")
"""The kinds of source that are followed by a path."""

MODEL = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
"""How a registered model is named: with an alias, or with a version."""


def with_absolute_paths(space: Space, folder: Path) -> Space:
    """The space with every path of a file in it absolute, taken from ``folder``."""

    def whole(place: str) -> str:
        return str((folder / Path(place).expanduser()).resolve())

    def absolute(path: positions.Path, value: Any) -> Any:
        match path, value:
            case ("data", "source"), str():
                kind, _, place = value.partition(":")
                return f"{kind}:{whole(place)}" if kind in FILES else value
            case ("data", "augment", int(), "table"), str():
                return whole(value)
            case ("model", "pretrained", "weights"), str() if is_weights_path(value):
                return whole(value)
            case _:
                return value

    return space.map(absolute)
