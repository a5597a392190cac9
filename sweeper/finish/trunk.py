"""Trunks: the first epochs that all trials of one architecture share, trained once.

A trunk is a trial of its own, trained by the recipe of the first trial that needs it. Where that recipe diverges, so
does the trial it is of, and the next one that needs a trunk tries with its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from sweeper.catalog import ENDED, TrialRow
from sweeper.finish.board import Step, kept, read_board
from sweeper.search import Proposal
from sweeper.sweep import Sweep
from trials.recipe import Constant, Recipe, Start
from trials.seed import derive_seed

VARIED = {"augment", "mix", "mix_alpha", "resident"}
"""Keys of `data` that change neither the model nor what it is given of an example."""


def group(recipe: Recipe) -> str:
    """What trials have in common that may branch from one trunk: model, data, length of the trunk."""
    shared = {
        "model": recipe.model.model_dump(mode="json"),
        "data": recipe.data.model_dump(mode="json", exclude=VARIED),
        "trunk_epochs": recipe.average.trunk_epochs,
    }
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
    no_averages = {"ema": None, "swa": None, "early_stop": None, "lr_finder": None, "pictures": False}
    train = recipe.train.model_copy(update={"epochs": recipe.average.trunk_epochs, "schedule": schedule, **no_averages})
    seed = derive_seed(study_seed, "trunk", group(recipe), fresh)
    average = recipe.average.model_copy(update={"best_n": 0, "trunk_epochs": 0})
    trunk = recipe.model_copy(update={"seed": seed, "train": train, "average": average, "start": None})
    return Step("trunk", {"trunk": group(recipe), "of": number, "seed": fresh}, trunk)


def branched(recipe: Recipe, trunk: Start) -> Recipe:
    """The recipe of a trial that goes on from a trunk with what is left of its epochs."""
    train = recipe.train.model_copy(update={"epochs": recipe.train.epochs - recipe.average.trunk_epochs})
    return recipe.model_copy(update={"train": train, "start": trunk})


def rooted(sweep: Sweep, proposal: Proposal) -> Proposal | TrialRow | None:
    """The proposal with its trunk, or the trunk to train first, or ``None`` where it waits or has failed.

    Raises:
        StoreError: the catalog cannot be read or written.
    """
    key = group(proposal.recipe)
    board = read_board(sweep.catalog, sweep.row, sweep.finish, sweep.study.seed)
    trunks = [
        trial
        for trial in board.trials
        if trial.role == "trunk" and trial.params["trunk"] == key and trial.params["seed"] == 0
    ]
    whole = next((trial for trial in trunks if trial.state == "complete"), None)
    if whole is not None:
        weights = board.raw(whole.number)
        assert weights is not None, "a trial that is complete has raw weights, which stay"
        start = Start(weights=kept(weights), epochs=proposal.recipe.average.trunk_epochs)
        return replace(proposal, recipe=branched(proposal.recipe, start))
    own = next((trial for trial in trunks if trial.params["of"] == proposal.number and trial.state == "failed"), None)
    if own is not None:
        _fail_with(sweep, proposal, own)
        return None
    sweep.blocked.append(proposal)
    if any(trial.state not in ENDED for trial in trunks):
        return None
    step = trunk_step(proposal.recipe, proposal.number, sweep.study.seed)
    return add_step(sweep, step, board.next_number())


def add_step(sweep: Sweep, step: Step, number: int) -> TrialRow:
    """Record a trial that the search did not ask for; it waits."""
    return sweep.catalog.add_trial(
        sweep.row.id, number, params=step.params, recipe=step.recipe_json(), role=step.role, state="waiting"
    )


def _fail_with(sweep: Sweep, proposal: Proposal, trunk: TrialRow) -> None:
    """Record that a trial failed as the trunk did that was trained by its recipe."""
    recipe: dict[str, Any] = json.loads(proposal.recipe.model_dump_json())
    row = sweep.catalog.add_trial(sweep.row.id, proposal.number, params=proposal.params, recipe=recipe)
    reason = f"its trunk, trial {trunk.number}: {trunk.reason}"
    sweep.catalog.end_trial(row.id, "failed", reason=reason, failure=trunk.failure)
    sweep.search.fail(proposal.number, reason, infeasible=trunk.failure in ("diverged", "infeasible"))
    sweep.progress.ended(proposal.number, "failed", None, reason)
