"""What a study that runs begins beside the search's trials: trunks, and finishing moves one stage after another."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sweeper.catalog import ENDED, TrialRow
from sweeper.finish.board import Step, kept, read_board
from sweeper.finish.plan import next_steps
from sweeper.finish.trunk import branched, group, trunk_step
from sweeper.search import Proposal
from sweeper.sweep import Sweep
from trials.recipe import Start


def next_moves(sweep: Sweep) -> list[TrialRow]:
    """The trials that finishing needs next, recorded as waiting; none in a study that does not finish, or has.

    Raises:
        StoreError: the catalog cannot be read or written.
    """
    if sweep.study.finish is None:
        return []
    board = read_board(sweep.catalog, sweep.row, sweep.study.finish, sweep.study.seed)
    first = board.next_number()
    return [add_step(sweep, step, number) for number, step in enumerate(next_steps(board), start=first)]


def rooted(sweep: Sweep, proposal: Proposal) -> Proposal | TrialRow | None:
    """What is to be begun: the proposal, with its trunk if it has one; or the trunk; ``None`` where it waits or failed.

    Raises:
        StoreError: the catalog cannot be read or written.
    """
    known = sweep.known.get(proposal.number)
    # One that failed with its trunk, and is retried, has not begun from it.
    if not proposal.recipe.average.trunk_epochs or (known is not None and known.recipe.get("start") is not None):
        return proposal
    key = group(proposal.recipe)
    board = read_board(sweep.catalog, sweep.row, sweep.finish, sweep.study.seed)
    trunks = [
        trial
        for trial in board.trials
        if trial.role == "trunk" and trial.params["trunk"] == key and trial.params["seed"] == 0
    ]
    weights = next((left for trial in trunks if (left := board.raw(trial.number)) is not None), None)
    if weights is not None:
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


def release(sweep: Sweep) -> None:
    """Let the trials go on whose trunk is not in training: it is there, or has failed, or goes on before them."""
    if not (sweep.blocked or sweep.waiting):
        return  # as between most events of a study, each of which would look through all that runs
    training = {trial.row.params["trunk"] for trial in sweep.running.values() if trial.row.role == "trunk"}
    ready = [proposal for proposal in sweep.blocked if group(proposal.recipe) not in training]
    sweep.blocked = [proposal for proposal in sweep.blocked if group(proposal.recipe) in training]
    # A trunk for which there was no room goes first: the others would only be blocked again, and hold its place.
    trunks = [row for row in sweep.waiting if isinstance(row, TrialRow) and row.role == "trunk"]
    sweep.waiting = [*trunks, *ready, *(row for row in sweep.waiting if row not in trunks)]


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
