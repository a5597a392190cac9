"""What a checkpoint holds of a trial, and how the trial goes on from it: after an epoch, or in the midst of one."""

from __future__ import annotations

from typing import Any

from trials.checkpoint import Checkpoint, TrialFolder
from trials.errors import DataError, TrialError
from trials.fit.fitting import Fitting
from trials.fit.step import Midway
from trials.history import History
from trials.recipe import Recipe


def resume(where: TrialFolder, recipe: Recipe, fitting: Fitting, data_digest: str) -> tuple[History, Midway | None]:
    """Load the newest checkpoint into ``fitting``, if there is one; the history up to it, and where its epoch stands.

    Raises :class:`TrialError` for a checkpoint of another recipe, :class:`DataError` when the data changed.
    """
    checkpoint = fitting.ranks.agree(where.newest_checkpoint)
    if checkpoint is None:
        return History(recipe), None
    state = checkpoint.state
    if not _goes_on_as(state["recipe"], recipe.model_dump(mode="json")):
        raise TrialError(f"{where.checkpoints}: another recipe's trial; use a new folder")
    if state["data"] != data_digest:
        raise DataError(f"{where.root}: the data of {recipe.data.source} changed since this trial began; start it anew")
    for kind, model in {"raw": fitting.model, **fitting.averages()}.items():
        model.load_state_dict(checkpoint.models[kind])
    fitting.load_state(state["fitting"])
    where.notes[:0] = state["notes"]
    history = History(recipe, state["metrics"], state["epoch_seconds"], state["begun_seconds"])
    return history, Midway(checkpoint.step, state["midway"]) if checkpoint.step else None


def save(
    where: TrialFolder, fitting: Fitting, history: History, data_digest: str, midway: Midway | None = None
) -> None:
    """Write a checkpoint of the epochs so far, and of one that stands ``midway``."""
    state = {
        "fitting": fitting.state(),
        "metrics": history.metrics,
        "epoch_seconds": history.epoch_seconds,
        "begun_seconds": history.begun_seconds,
        "midway": None if midway is None else midway.state,
        "notes": where.notes,
        "recipe": history.recipe.model_dump(mode="json"),
        "data": data_digest,
    }
    models = {"raw": fitting.model, **fitting.averages()}
    weights = {kind: model.state_dict() for kind, model in models.items()}
    step = 0 if midway is None else midway.steps
    where.save(Checkpoint(history.epochs, weights, state, step), history.saved_epochs, history.saved_ema_epochs)


def _goes_on_as(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether a trial may go on by the recipe ``here``: extended, and passing another micro-batch at once."""
    begun = there["extensions"]

    def base(recipe: dict[str, Any]) -> dict[str, Any]:
        return {**recipe, "extensions": None, "train": {**recipe["train"], "micro_batch": None}}

    return base(there) == base(here) and here["extensions"][: len(begun)] == begun
