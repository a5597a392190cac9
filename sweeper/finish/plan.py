"""What is to be made next: stages that follow from the catalog, each from what the ones before it came to.

A *way* leads to a model: the best trial as it is, a soup, an ensemble, longer training, a student. Each is gone first
from what the sweep left (seed 0); those that came furthest are then gone again from fresh seeds, beginning with the
trials they need, which all ways share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweeper.catalog import TrialRow, WeightsRow
from sweeper.finish import recipes
from sweeper.finish.board import Board, Step, is_average, kept
from sweeper.rank.leaderboard import rank
from trials.recipe import Recipe, Start
from trials.seed import derive_seed

SINGLE = "best trial"
"""The way that needs no finishing: the best raw weights of one trial."""
AVERAGE = "average within a trial"
"""The best weights that a trial averaged itself: ema, swa, best_n."""
SOUPS = {"uniform soup": False, "greedy soup": True}
ENSEMBLES = {"top ensemble": False, "greedy ensemble": True}
BRANCH_SOUPS = {"uniform soup of branches": False, "greedy soup of branches": True}
EXTEND, STUDENT, UNTAUGHT = "extended", "student", "student without teacher"
WIDTH = 2.0
"""The learning rates of branches lie between this part of the trial's own and this multiple of it."""


@dataclass(frozen=True)
class Replica:
    """The sweep's best trials, or these trained again from a fresh seed."""

    seed: int
    """0 for the sweep's own."""
    trials: Mapping[int, int]
    """From the number of a trial of the search to that of the one that stands for it."""


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
    of_sweep = Replica(0, {row.trial: row.trial for row in board.searched})
    yield from _moves(board, of_sweep, wanted=None)
    if not board.finish.seeds:
        return
    wanted = finalists(board)
    needed = sorted({number for way in wanted for number in _needs(board, way)})
    fresh = range(1, board.finish.seeds + 1)
    trunks = [step for seed in fresh for number in needed if (step := _fresh_trunk(board, number, seed)) is not None]
    yield list({step.recipe.model_dump_json(): step for step in trunks}.values())
    again = {seed: {number: _again(board, number, seed) for number in needed} for seed in fresh}
    yield [step for steps in again.values() for step in steps.values() if step is not None]
    replicas = [_replica(board, seed, steps) for seed, steps in again.items()]
    for stages in zip(*(_moves(board, replica, wanted) for replica in replicas), strict=True):
        yield [step for stage in stages for step in stage]


def _moves(board: Board, replica: Replica, wanted: Sequence[str] | None) -> Iterator[list[Step]]:
    """The two stages of one replica: what needs only trials, then what needs the first; always as many."""

    def is_wanted(*ways: str) -> bool:
        return wanted is None or any(way in wanted for way in ways)

    first = [
        *(step for way, step in _soups(board, replica).items() if is_wanted(way)),
        *(step for way, step in _ensembles(board, replica).items() if is_wanted(way, STUDENT)),
        *(step for step in [_extended(board, replica)] if step is not None and is_wanted(EXTEND)),
        *(_branches(board, replica) if is_wanted(*BRANCH_SOUPS) else ()),
    ]
    yield first
    yield [
        *(step for way, step in _branch_soups(board, replica).items() if is_wanted(way)),
        *(step for way, step in _students(board, replica).items() if is_wanted(way)),
    ]


def ways(board: Board, replica: Replica) -> dict[str, WeightsRow]:
    """The weights to which each way led, from what that replica stands for; ways that failed are missing."""
    found: dict[str, WeightsRow] = {}
    for way, average in ((SINGLE, False), (AVERAGE, True)):
        number = _source(board, average=average)
        if number is not None and number in replica.trials:
            left = board.left(replica.trials[number])
            same = [row for row in left if is_average(row)] if average else [row for row in left if row.kind == "raw"]
            # An average that was not kept, since it was worse, has left the weights that it was worse than.
            if same or (average and left):
                found[way] = (same or left)[0]
    steps = {**_soups(board, replica), **_ensembles(board, replica), **_branch_soups(board, replica)}
    steps |= _students(board, replica)
    extended = _extended(board, replica)
    if extended is not None:
        steps[EXTEND] = extended
    for way, step in steps.items():
        trial = board.find(step)
        left = [] if trial is None or trial.state != "complete" else board.left(trial.number)
        if left:
            found[way] = left[0]
    return found


def replicas(board: Board) -> list[Replica]:
    """The sweep's own trials, then those of each fresh seed as far as they were trained."""
    of_sweep = Replica(0, {row.trial: row.trial for row in board.searched})
    needed = sorted({number for way in finalists(board) for number in _needs(board, way)})
    fresh = [
        _replica(board, seed, {number: _again(board, number, seed) for number in needed})
        for seed in range(1, board.finish.seeds + 1)
    ]
    return [of_sweep, *fresh]


def finalists(board: Board) -> list[str]:
    """The ways that are gone again: the best trial's, and those that came furthest on the selection split."""
    of_sweep = Replica(0, {row.trial: row.trial for row in board.searched})
    reached = {way: row for way, row in ways(board, of_sweep).items() if way != UNTAUGHT}
    order = [row.path for row in rank(reached.values(), board.metric)]
    others = sorted((way for way in reached if way != SINGLE), key=lambda way: order.index(reached[way].path))
    return [SINGLE, *others[: board.finish.finalists - 1]]


def best(board: Board) -> int:
    """The trial that the search found to be the best, of which there are branches and students."""
    return board.searched[0].trial


def _pool(board: Board, *, averaged: bool) -> list[int]:
    """The best trials that go well with the best: for soups of its architecture, for ensembles given the same."""
    alike = recipes.architecture if averaged else recipes.given
    wanted = alike(board.recipe(best(board)))
    numbers = dict.fromkeys(row.trial for row in board.searched)
    return [number for number in numbers if alike(board.recipe(number)) == wanted][: board.finish.pool]


def _source(board: Board, *, average: bool) -> int | None:
    """The trial whose raw weights, or own average, are the best."""
    return next((row.trial for row in board.searched if is_average(row) == average), None)


def _needs(board: Board, way: str) -> list[int]:
    """The trials of the search that a way begins from."""
    if way in (SINGLE, AVERAGE):
        number = _source(board, average=way == AVERAGE)
        return [] if number is None else [number]
    if way in SOUPS:
        return _pool(board, averaged=True)
    if way in ENSEMBLES:
        return _pool(board, averaged=False)
    return [best(board), *(_pool(board, averaged=False) if way == STUDENT else ())]


def _standing(board: Board, replica: Replica, numbers: Sequence[int]) -> list[WeightsRow]:
    """All weights of the trials that stand for these, best first; of trials that all are there."""
    if not all(number in replica.trials for number in numbers):
        return []
    return rank([row for number in numbers for row in board.left(replica.trials[number])], board.metric)


def _soups(board: Board, replica: Replica) -> dict[str, Step]:
    ingredients = _standing(board, replica, _pool(board, averaged=True))
    if len(ingredients) < 2:
        return {}
    return {
        way: _step(replica, way, recipes.soup(board, ingredients, _seed(board, replica, way), greedy=greedy))
        for way, greedy in SOUPS.items()
    }


def _ensembles(board: Board, replica: Replica) -> dict[str, Step]:
    rows = _standing(board, replica, _pool(board, averaged=False))
    members = list({row.trial: row for row in reversed(rows)}.values())[::-1]  # the best of each trial
    if len(members) < 2:
        return {}
    members = rank(members, board.metric)
    return {
        way: _step(replica, way, recipes.ensemble(board, members, _seed(board, replica, way), greedy=greedy))
        for way, greedy in ENSEMBLES.items()
    }


def _share_epochs(board: Board, move: str) -> int:
    """The epochs that one of `finish.moves` may spend."""
    moves = board.finish.moves
    return board.finish.epochs // len(moves) if move in moves else 0


def _begun_from(board: Board, replica: Replica) -> WeightsRow | None:
    """The raw weights of the best trial, or of the one that stands for it."""
    number = replica.trials.get(best(board))
    return None if number is None else board.raw(number)


def _extended(board: Board, replica: Replica) -> Step | None:
    epochs, weights = _share_epochs(board, "extend"), _begun_from(board, replica)
    if not epochs or weights is None:
        return None
    return _step(replica, EXTEND, recipes.longer(board, weights, epochs, _seed(board, replica, EXTEND)))


def _branches(board: Board, replica: Replica) -> list[Step]:
    count = board.finish.branches
    epochs, weights = _share_epochs(board, "branch") // count, _begun_from(board, replica)
    if not epochs or weights is None:
        return []
    steps = []
    for index in range(count):
        lr = WIDTH ** (2.0 * index / (count - 1) - 1.0)
        seed = _seed(board, replica, f"branch {index + 1}")
        recipe = recipes.longer(board, weights, epochs, seed, lr)
        steps.append(_step(replica, f"branch {index + 1}", recipe))
    return steps


def _branch_soups(board: Board, replica: Replica) -> dict[str, Step]:
    branches = [trial for step in _branches(board, replica) if (trial := board.find(step)) is not None]
    rows = [row for trial in branches if trial.state == "complete" for row in board.left(trial.number)]
    own = _begun_from(board, replica)
    ingredients = rank([*rows, *([] if own is None else [own])], board.metric)
    if not rows or len(ingredients) < 2:
        return {}
    return {
        way: _step(replica, way, recipes.soup(board, ingredients, _seed(board, replica, way), greedy=greedy))
        for way, greedy in BRANCH_SOUPS.items()
    }


def _students(board: Board, replica: Replica) -> dict[str, Step]:
    """The student, and for comparison the same one without a teacher: same epochs, same seed."""
    epochs, weights = _share_epochs(board, "distil"), _begun_from(board, replica)
    teachers = [trial for step in _ensembles(board, replica).values() if (trial := board.find(step)) is not None]
    taught_by = rank([row for trial in teachers for row in board.left(trial.number)], board.metric)
    if not epochs or weights is None or not taught_by:
        return {}
    seed = _seed(board, replica, STUDENT)
    steps = {STUDENT: _step(replica, STUDENT, recipes.student(board, weights, taught_by[0], epochs, seed))}
    if board.finish.distil.compare:
        steps[UNTAUGHT] = _step(replica, UNTAUGHT, recipes.student(board, weights, None, epochs, seed))
    return steps


def _trunk_of(board: Board, start: Start | None) -> TrialRow | None:
    """The trunk whose weights a training began from, if it is one."""
    if start is None:
        return None
    digests = {row.trial: row.sha256 for row in board.weights if row.role == "trunk"}
    return next((board.by_number[n] for n, sha256 in digests.items() if sha256 == start.weights.sha256), None)


def _fresh_trunk(board: Board, number: int, seed: int) -> Step | None:
    """The trunk of a trial once more, from a fresh seed; ``None`` if it has none."""
    trunk = _trunk_of(board, board.recipe(number).start)
    if trunk is None:
        return None
    drawn = derive_seed(board.seed, "trunk", trunk.params["trunk"], seed)
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


def _seed(board: Board, replica: Replica, way: str) -> int:
    return derive_seed(board.seed, "finish", way, replica.seed)


def _step(replica: Replica, way: str, recipe: Recipe) -> Step:
    return (
        Step("seed", {"move": way, "seed": replica.seed}, recipe)
        if replica.seed
        else Step("move", {"move": way}, recipe)
    )
