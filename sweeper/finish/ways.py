"""Ways to a model, each as the steps it takes: the best trial as it is, soups, ensembles, longer training, a student.

Each is gone from what one replica of the sweep's best trials has left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sweeper.catalog import WeightsRow
from sweeper.finish import recipes
from sweeper.finish.alike import architecture, given
from sweeper.finish.board import Board, Step, is_average
from sweeper.rank.leaderboard import rank
from trials.recipe import Recipe
from trials.seed import derive_seed

SINGLE = "best trial"
"""The way that needs no finishing: the best raw weights of one trial."""
AVERAGE = "average within a trial"
"""The best weights that a trial averaged itself: ema, swa, best_n."""
SOUPS = {"uniform soup": False, "greedy soup": True}
ENSEMBLES = {"top ensemble": False, "greedy ensemble": True}
BRANCH_SOUPS = {"uniform soup of branches": False, "greedy soup of branches": True}
AVERAGES = (AVERAGE, *SOUPS, *BRANCH_SOUPS)
"""All ways that average weights."""
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


def moves(board: Board, replica: Replica, wanted: Sequence[str] | None) -> Iterator[list[Step]]:
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
        number = source(board, average=average)
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


def left_out(board: Board, replica: Replica) -> tuple[str, ...]:
    """Of each way that led to nothing, why: nothing to put together, no epochs for it, or what went wrong."""
    said: dict[str, list[str]] = {}

    def note(reason: str, *names: str) -> None:
        said.setdefault(reason, []).extend(names)

    steps = {**_soups(board, replica), **_ensembles(board, replica), **_branch_soups(board, replica)}
    for way, step in steps.items():
        trial = board.find(step)
        if trial is not None and trial.state == "failed":
            note(trial.reason or "it failed", way)
    if not _soups(board, replica):
        note("one set of weights of the best architecture, and nothing to average it with", *SOUPS)
    if not _ensembles(board, replica):
        note("one trial that is given what the best is given, and nothing to put it together with", *ENSEMBLES)
    epochs, count = _share_epochs(board, "branch"), board.finish.branches
    if 0 < epochs < count:
        note(f"{epochs} of {board.finish.epochs} `epochs` are too few for {count} `branches`", *BRANCH_SOUPS)
    return tuple(f"no {' and no '.join(names)}: {reason}" for reason, names in said.items())


def best(board: Board) -> int:
    """The trial that the search found to be the best, of which there are branches and students."""
    return board.searched[0].trial


def pool(board: Board, *, averaged: bool) -> list[int]:
    """The best trials that go well with the best: for soups of its architecture, for ensembles given the same."""
    alike = architecture if averaged else given
    wanted = alike(board.recipe(best(board)))
    numbers = dict.fromkeys(row.trial for row in board.searched)
    matching = (number for number in numbers if alike(board.recipe(number)) == wanted)
    return list(islice(matching, board.finish.pool))


def source(board: Board, *, average: bool) -> int | None:
    """The trial whose raw weights, or own average, are the best."""
    return next((row.trial for row in board.searched if is_average(row) == average), None)


def _standing(board: Board, replica: Replica, numbers: Sequence[int]) -> list[WeightsRow]:
    """All weights of the trials that stand for these, best first; of trials that all are there."""
    if not all(number in replica.trials for number in numbers):
        return []
    return rank([row for number in numbers for row in board.left(replica.trials[number])], board.metric)


def _soups(board: Board, replica: Replica) -> dict[str, Step]:
    ingredients = _standing(board, replica, pool(board, averaged=True))
    if len(ingredients) < 2:
        return {}
    return {
        way: _step(replica, way, recipes.soup(board, ingredients, _seed(board, replica, way), greedy=greedy))
        for way, greedy in SOUPS.items()
    }


def _ensembles(board: Board, replica: Replica) -> dict[str, Step]:
    rows = _standing(board, replica, pool(board, averaged=False))
    best_of = {row.trial: row for row in reversed(rows)}
    members = [row for row in rows if row is best_of[row.trial]]
    if len(members) < 2:
        return {}
    return {
        way: _step(replica, way, recipes.ensemble(board, members, _seed(board, replica, way), greedy=greedy))
        for way, greedy in ENSEMBLES.items()
    }


def branch_rates(count: int) -> list[float]:
    """The learning rates of so many branches, at least 2, as multiples of the trial's own: even steps on a log scale.

    Of an even number none is the trial's own rate: what that gives is seen by the extension.

    >>> branch_rates(2), branch_rates(3)
    ([0.5, 2.0], [0.5, 1.0, 2.0])
    """
    return [WIDTH ** (2.0 * index / (count - 1) - 1.0) for index in range(count)]


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
    for number, lr in enumerate(branch_rates(count), start=1):
        recipe = recipes.longer(board, weights, epochs, _seed(board, replica, f"branch {number}"), lr)
        steps.append(_step(replica, f"branch {number}", recipe))
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


def _seed(board: Board, replica: Replica, way: str) -> int:
    return derive_seed(board.seed, "finish", way, replica.seed)


def _step(replica: Replica, way: str, recipe: Recipe) -> Step:
    return (
        Step("seed", {"move": way, "seed": replica.seed}, recipe)
        if replica.seed
        else Step("move", {"move": way}, recipe)
    )
