"""A trial whose folder is kept in the store: brought before it is trained, sent after each checkpoint."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from sweeper.errors import StoreError
from sweeper.store.index import file_name
from sweeper.store.mirror import Mirror, bring
from sweeper.store.store import WORKER_PATIENCE_SECONDS, Absent, Store
from trials.checkpoint import TrialFolder
from trials.errors import Interrupted
from trials.manifest import Damaged
from trials.recipe import KeptWeights, Recipe
from trials.result import EpochReport, TrialResult

if TYPE_CHECKING:
    from sweeper.runner import TrainFunction

STUDY_LEVELS = 2
"""How far the folder of a trial lies below that of its study, here as in the store: ``trials/0007``."""


def kept_in_store(train: TrainFunction, place: str, patience_seconds: float = WORKER_PATIENCE_SECONDS) -> TrainFunction:
    """What trains as ``train`` does, in a folder that is kept in the store.

    An epoch is reported once its checkpoint is there, and a trial has ended once all that it left is. What is trained
    knows nothing of it.

    Args:
        train: trains one recipe in a folder.
        place: the address of the trial's folder in the store.
        patience_seconds: how long the store may be away.

    The function raises what ``train`` does, and `StoreError` where the store is away for longer, refuses, or where
    somebody else has taken the trial.
    """
    address, trials, number = place.rsplit("/", STUDY_LEVELS)

    def train_there(
        recipe: Recipe, folder: Path, report: Callable[[EpochReport], bool], /, *, stop: Callable[[], bool]
    ) -> TrialResult:
        store = Store(address, patience_seconds)
        mirror = Mirror(store, f"{trials}/{number}", folder)
        with TrialFolder(folder).owned():
            notes = [*mirror.take(), *mirror.pull()]
        _bring_needed(store, recipe, f"{trials}/{number}", folder)

        def report_sent(epoch: EpochReport) -> bool:
            mirror.push(epoch.epoch)
            return report(epoch)

        try:
            result = train(recipe, folder, report_sent, stop=stop)
        except Interrupted:
            # It stops in the midst of an epoch, and soon: what cannot be sent at once is trained again.
            store.patience_seconds = 0.0
            with suppress(StoreError):
                mirror.push(mirror.index.epoch)
            raise
        mirror.push(result.epochs)
        return result.model_copy(update={"notes": (*result.notes, *notes)}) if notes else result

    return train_there


def needed_weights(section: Any) -> Iterator[KeptWeights]:
    """The weights of other trials that a recipe, or a part of it, names."""
    if isinstance(section, KeptWeights):
        yield section
    elif isinstance(section, BaseModel):
        for name in type(section).model_fields:
            yield from needed_weights(getattr(section, name))
    elif isinstance(section, tuple):
        for item in section:
            yield from needed_weights(item)


def _bring_needed(store: Store, recipe: Recipe, name: str, folder: Path) -> None:
    """Have here what the recipe names of other trials, and the registered model that it begins from.

    What is gone or damaged is left to the trial, which says what it needs it for.

    Raises:
        StoreError: the store cannot be read.
    """
    for kept in needed_weights(recipe):
        there = posixpath.normpath(f"{name}/{kept.path}")
        with suppress(Absent, Damaged):
            trial = "/".join(there.split("/")[:STUDY_LEVELS])
            bring(store, file_name(trial, kept.sha256), (folder / kept.path).resolve(), kept.sha256)
    if recipe.model.pretrained is not None:
        model = Path(recipe.model.pretrained.weights)
        if model.parent.name == "pretrained" and not model.exists():
            there_too = Mirror(store, f"pretrained/{model.name}", model)
            there_too.look()
            there_too.pull()
