"""Files that a study names: taken from the folder of the study file, wherever the trials run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sweeper import positions
from sweeper.space import Choice, Space, Tree
from trials.recipe.model import is_weights_path

FILES = ("npz", "folder", "csv", "parquet")
"""The kinds of source that are followed by a path."""


def with_absolute_paths(space: Space, folder: Path) -> Space:
    """The space with every path of a file in it absolute, taken from ``folder``."""
    return Space({section: _absolute(tree, (section,), folder) for section, tree in space.sections.items()})


def _absolute(tree: Tree, path: positions.Path, folder: Path) -> Tree:
    """``tree``, which stands at ``path``, with its paths taken from ``folder``; in all branches of a choice."""
    match tree:
        case Choice():
            return replace(tree, options=tuple(_absolute(option, path, folder) for option in tree.options))
        case dict():
            return {key: _absolute(item, (*path, key), folder) for key, item in tree.items()}
        case list():
            return [_absolute(item, (*path, index), folder) for index, item in enumerate(tree)]
        case str():
            return _absolute_value(tree, path, folder)
        case _:
            return tree


def _absolute_value(value: str, path: positions.Path, folder: Path) -> str:
    def whole(place: str) -> str:
        return str((folder / Path(place).expanduser()).resolve())

    match path:
        case ("data", "source"):
            kind, _, place = value.partition(":")
            return f"{kind}:{whole(place)}" if kind in FILES else value
        case ("data", "augment", int(), "table"):
            return whole(value)
        case ("model", "pretrained", "weights") if is_weights_path(value):
            return whole(value)
        case _:
            return value
