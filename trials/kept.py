"""Weights that another trial has left, read for use in this one: by their digest the very ones that were meant."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from trials.errors import TrialError
from trials.locate import one_line
from trials.manifest import Damaged, verify
from trials.recipe import KeptWeights
from trials.tensor_files import read_weights


def path_of(kept: KeptWeights, root: Path) -> Path:
    """Where the file is, seen from the trial in the folder ``root``."""
    return (root / kept.path).resolve()


def read_kept(kept: KeptWeights, root: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a file that the trial in the folder ``root`` uses, on the host.

    Raises :class:`TrialError`, which begins with the ``key`` of the recipe that names the file, when it is gone, or is
    not what it was.
    """
    path = path_of(kept, root)
    try:
        return read_weights(path, kept.sha256)
    except Damaged as damage:
        raise _unusable(kept, path, key, damage) from damage


def verified_path(kept: KeptWeights, root: Path, key: str) -> Path:
    """Where the file is that the trial in the folder ``root`` uses, which is read once and not held.

    Raises :class:`TrialError` as :func:`read_kept` does.
    """
    path = path_of(kept, root)
    try:
        verify(path, kept.sha256)
    except Damaged as damage:
        raise _unusable(kept, path, key, damage) from damage
    return path


def _unusable(kept: KeptWeights, path: Path, key: str, damage: Damaged) -> TrialError:
    return TrialError(
        f"{key}: {path}: cannot be used as {kept.name} ({damage.found}); put the file back, or train anew what needs it"
    )


def load_kept(model: nn.Module, kept: KeptWeights, root: Path, key: str, build: str) -> None:
    """Put the weights in place of those of ``model``, which ``build`` names: all of them, and no others.

    Raises :class:`TrialError` when they cannot be read, or are of another model.
    """
    weights = read_kept(kept, root, key)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TrialError(
            f"{key}: {path_of(kept, root)}: {kept.name} is of another model, expected weights of this {build} "
            f"({one_line(error)})"
        ) from error
