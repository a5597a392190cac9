"""What is to be made next: stages that follow from the catalog, each from what the ones before it came to.

Each way to a model is gone first from what the sweep left (seed 0). Those that came furthest are then gone again from
fresh seeds, beginning with the trials they need, which all ways share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sweeper.catalog import TrialRow
from sweeper.finish.board import Board, Step, kept
from sweeper.finish.trunk import trunk_seed
from sweeper.finish.ways import (
    AVERAGE,
    AVERAGES,
    ENSEMBLES,
    SINGLE,
    SOUPS,
    STUDENT,
    UNTAUGHT,
    Replica,
    best,
    moves,
    pool,
    source,
    ways,
)
from sweeper.rank.leaderboard import rank
from trials.recipe import Start
from trials.seed import derive_seed


def next_steps(board: Board) -> list[Step]:
    """The trials that are to be begun now; none while others have not ended, and none when all has been tried."""
    for stage in _stages(board):
        missing = [step for step in stage if board.find(step) is None]
        if missing or not board.has_ended(stage):
            return missing
    return []


def is_over(board: Board) -> bool:
    """Whether all has been tried."""
    return all(board.has_ended(stage) for stage in _stages(board))


def _stages(board: Board) -> Iterator[list[Step]]:
    """Stage after stage; what comes after one that has not ended makes no sense yet."""
    if not board.searched:
        return
    yield from moves(board, _of_sweep(board), wanted=None)
    if not board.finish.seeds:
        return
    wanted = finalists(board)
    if STUDENT in wanted:
        wanted.append(UNTAUGHT)  # which only `distil.compare` makes
    needed = sorted({number for way in wanted for number in _needs(board, way)})
    fresh = range(1, board.finish.seeds + 1)
    trunks = [step for seed in fresh for number in needed if (step := _fresh_trunk(board, number, seed)) is not None]
    yield list({step.recipe.model_dump_json(): step for step in trunks}.values())
    again = {seed: {number: _again(board, number, seed) for number in needed} for seed in fresh}
    yield [step for steps in again.values() for step in steps.values() if step is not None]
    replicas = [_replica(board, seed, steps) for seed, steps in again.items()]
    for stages in zip(*(moves(board, replica, wanted) for replica in replicas), strict=True):
        yield [step for stage in stages for step in stage]


def finalists(board: Board) -> list[str]:
    """The ways that compete: the best trial's, and those that came furthest on the selection split, best first.

    The one that came furthest of all is among them; then, while there is room, the best way that averages weights and
    the best ensemble, so that the end says what averaging and ensembling gained; then the rest.
    """
    reached = {way: row for way, row in ways(board, _of_sweep(board)).items() if way != UNTAUGHT}
    order = [row.path for row in rank(reached.values(), board.metric)]
    others = sorted((way for way in reached if way != SINGLE), key=lambda way: order.index(reached[way].path))
    kinds = (others, AVERAGES, ENSEMBLES)
    leading = [of_kind[0] for kind in kinds if (of_kind := [way for way in others if way in kind])]
    chosen = list(dict.fromkeys([*leading, *others]))[: board.finish.finalists - 1]
    return [SINGLE, *sorted(chosen, key=others.index)]


def replicas(board: Board) -> list[Replica]:
    """The sweep's own trials, then those of each fresh seed as far as they were trained."""
    needed = sorted({number for way in finalists(board) for number in _needs(board, way)})
    fresh = [
        _replica(board, seed, {number: _again(board, number, seed) for number in needed})
        for seed in range(1, board.finish.seeds + 1)
    ]
    return [_of_sweep(board), *fresh]


def _of_sweep(board: Board) -> Replica:
    """The search's own trials, each in its own place."""
    return Replica(0, {row.trial: row.trial for row in board.searched})


def _needs(board: Board, way: str) -> list[int]:
    """The trials of the search that a way begins from."""
    if way in (SINGLE, AVERAGE):
        number = source(board, average=way == AVERAGE)
        return [] if number is None else [number]
    if way in SOUPS:
        return pool(board, averaged=True)
    if way in ENSEMBLES:
        return pool(board, averaged=False)
    return [best(board), *(pool(board, averaged=False) if way == STUDENT else ())]


def _trunk_of(board: Board, start: Start | None) -> TrialRow | None:
    """The trunk whose weights a training began from, if it is one."""
    if start is None:
        return None
    trunks = {row.sha256: row.trial for row in board.weights if row.role == "trunk"}
    number = trunks.get(start.weights.sha256)
    return None if number is None else board.by_number[number]


def _fresh_trunk(board: Board, number: int, seed: int) -> Step | None:
    """The trunk of a trial once more, from a fresh seed; ``None`` if it has none."""
    trunk = _trunk_of(board, board.recipe(number).start)
    if trunk is None:
        return None
    drawn = trunk_seed(board.seed, trunk.params["trunk"], seed)
    recipe = board.recipe(trunk.number).model_copy(update={"seed": drawn})
    return Step("trunk", {**trunk.params, "seed": seed}, recipe)


def _again(board: Board, number: int, seed: int) -> Step | None:
    """A trial of the search once more, from a fresh seed; ``None`` where its trunk failed from that seed."""
    recipe = board.recipe(number).model_copy(update={"seed": derive_seed(board.seed, "again", number, seed)})
    trunk = _fresh_trunk(board, number, seed)
    if trunk is not None:
        found = board.find(trunk)
        weights = None if found is None else board.raw(found.number)
        if weights is None or recipe.start is None:
            return None
        recipe = recipe.model_copy(update={"start": Start(weights=kept(weights), epochs=recipe.start.epochs)})
    return Step("seed", {"trial": number, "seed": seed}, recipe)


def _replica(board: Board, seed: int, steps: Mapping[int, Step | None]) -> Replica:
    found = {number: board.find(step) for number, step in steps.items() if step is not None}
    whole = {number: trial.number for number, trial in found.items() if trial is not None and trial.state == "complete"}
    return Replica(seed, whole)
