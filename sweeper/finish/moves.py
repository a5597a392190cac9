"""Finishing moves, begun one stage after another in a study that runs."""

from __future__ import annotations

from sweeper.catalog import TrialRow
from sweeper.finish.board import read_board
from sweeper.finish.plan import next_steps
from sweeper.finish.trunk import add_step
from sweeper.sweep import Sweep


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
