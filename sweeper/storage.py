"""What of a study stays on the disk: what the catalog names, and what its best trials would go on from.

A file goes after the catalog has stopped to name it, and a kill in between leaves it for the next start to remove: all
here may be called again at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sweeper.rank.leaderboard import rank

if TYPE_CHECKING:
    from sweeper.catalog import Catalog, StudyRow, WeightsRow
    from sweeper.finish.board import Board
    from sweeper.study_file import Finish, Storage
    from sweeper.study_folder import StudyFolder


@dataclass(frozen=True)
class Removable:
    """Something that may go."""

    kind: Literal["resume_point", "weights"]
    trial: int
    bytes: int
    path: str = ""
    """Of weights: as the catalog names them."""


@dataclass(frozen=True)
class Freed:
    """What room was made."""

    bytes: int
    line: str | None = None
    """What a person should be told: that what is needed takes more than the limit. The same words each time."""


def best_trials(weights: Iterable[WeightsRow], metric: str) -> list[int]:
    """The numbers of the trials that have weights, by the best of them, best first."""
    return list(dict.fromkeys(row.trial for row in rank(weights, metric)))


def removables(
    weights: Sequence[WeightsRow],
    metric: str,
    storage: Storage,
    resume_points: Mapping[int, int],
    needed: Collection[str] = (),
) -> list[Removable]:
    """All that is not needed of complete trials, in the order in which it goes.

    First the resume points, from the worst trial to the best, so that those beyond `storage.extendable` go before the
    others; then the weights below the leaderboard's first `storage.keep_best`, from the worst. An average needs
    nothing beside it: it is made at the end of its trial, out of files that stay while that trial lives; a soup or an
    ensemble of several trials needs theirs until it is made, and a trunk is needed as long as trials may begin from it.

    Args:
        weights: all rows of complete trials.
        metric: what the leaderboard is about.
        storage: what study.yaml wants kept.
        resume_points: bytes of the resume point of each complete trial that has one.
        needed: paths of weights that stay: the winner's, trunks, and what finishing moves are made of.
    """
    ranked = rank(weights, metric)
    order = best_trials(weights, metric)
    # A trial whose weights have gone cannot be extended at all.
    unranked = sorted(resume_points.keys() - set(order))
    trials = [*unranked, *(number for number in reversed(order) if number in resume_points)]
    rows = [row for row in reversed(ranked[storage.keep_best :]) if row.path not in needed]
    return [
        *(Removable("resume_point", number, resume_points[number]) for number in trials),
        *(Removable("weights", row.trial, row.bytes, row.path) for row in rows),
    ]


def enough(removables: Sequence[Removable], surplus_bytes: float) -> list[Removable]:
    """The first of them, as many as it takes to free ``surplus_bytes``; all if that is not enough."""
    chosen: list[Removable] = []
    for removable in removables:
        if surplus_bytes <= 0:
            break
        chosen.append(removable)
        surplus_bytes -= removable.bytes
    return chosen


def ingredients(board: Board) -> set[str]:
    """The paths of weights that a study may still need to finish: its best trials', and what finishing has made.

    Which trials are the best may still change, until the last has ended: then it does not any more.
    """
    from sweeper.finish.ways import pool, source

    if not board.searched:
        return {row.path for row in board.weights}
    best = {
        *best_trials(board.searched, board.metric)[: board.finish.pool],
        *pool(board, averaged=True),
        *pool(board, averaged=False),
        source(board, average=True),
        source(board, average=False),
    }
    return {row.path for row in board.weights if row.role != "search" or row.trial in best}


def collect(
    catalog: Catalog,
    row: StudyRow,
    storage: Storage,
    folder: StudyFolder,
    *,
    finish: Finish | None = None,
    out_of_space: bool = False,
) -> Freed:
    """Remove what is over the limit, or, out of space, all that is not needed, whatever the limit.

    Resume points go first, since that takes no room; then the catalog forgets the weights in one write, and only then
    their files go: each file that the catalog names exists. What their trials were worth stays among their facts.

    Raises:
        StoreError: the catalog cannot be written; what had gone until then has gone.
    """
    from sweeper.finish.board import read_board

    limit_bytes = storage.limit_bytes
    if limit_bytes is None and not out_of_space:
        return Freed(0)
    used_bytes = folder.used_bytes()
    surplus_bytes = float("inf") if out_of_space or limit_bytes is None else used_bytes - limit_bytes
    if surplus_bytes <= 0:
        return Freed(0)
    if out_of_space:
        remove_leftovers(catalog, row, folder)
    complete = [trial.number for trial in catalog.trials(row.id) if trial.state == "complete"]
    resume_points = {number: held for number in complete if (held := folder.resume_point_bytes(number))}
    study = catalog.study(row.name)
    weights = catalog.weights(row.id, of="complete")
    needed = {(study.winner or {}).get("path", "")}
    if study.state != "finished":
        # What trials that were not asked for yet may begin from.
        needed |= {weights_row.path for weights_row in weights if weights_row.role == "trunk"}
    if finish is not None and study.state != "finished":
        needed |= ingredients(read_board(catalog, row, finish, seed=0))  # what is drawn does not matter here
    chosen = enough(removables(weights, row.metric, storage, resume_points, needed), surplus_bytes)
    _remove(catalog, row, folder, chosen)
    freed_bytes = used_bytes - folder.used_bytes()
    if limit_bytes is None or used_bytes - freed_bytes <= limit_bytes:
        return Freed(freed_bytes)
    return Freed(
        freed_bytes,
        f"study {row.name!r} needs more than its storage.limit of {storage.limit}, and nothing more can go; raise the "
        f"limit, or lower storage.keep_best ({storage.keep_best})",
    )


def _remove(catalog: Catalog, row: StudyRow, folder: StudyFolder, chosen: Iterable[Removable]) -> None:
    weights = []
    for removable in chosen:
        if removable.kind == "resume_point":
            folder.remove_resume_point(removable.trial)
        else:
            weights.append(removable.path)
    if weights:
        catalog.forget_weights(row.id, weights)
    for path in weights:
        folder.remove_file(path)


def keep_resume_points(weights: Iterable[WeightsRow], metric: str, most: int, folder: StudyFolder) -> list[WeightsRow]:
    """Remove the resume points of all trials that have ``weights`` but the best ``most``; the weights of those."""
    rows = [row for row in weights if row.role == "search"]
    order = best_trials(rows, metric)
    for number in order[most:]:
        folder.remove_resume_point(number)
    return [row for row in rows if row.trial in order[:most]]


def remove_leftovers(catalog: Catalog, study: StudyRow, folder: StudyFolder) -> None:
    """Remove what nobody will ask for: resume points of trials that ended badly, replaced weights and winners.

    The files of a trial that goes on are left alone: the catalog does not know of the newest.
    """
    winner = catalog.study(study.name).winner or {}
    named = {folder.root / row.path for row in catalog.weights(study.id)} | {folder.root / winner.get("path", "")}
    for trial in catalog.trials(study.id):
        if trial.state in ("pruned", "failed") or (trial.state == "complete" and trial.role != "search"):
            folder.remove_resume_point(trial.number)
        if trial.state == "complete":
            for path in folder.weights(trial.number):
                if path not in named:
                    folder.remove_file(path.relative_to(folder.root).as_posix())
    if winner:
        for package in folder.packages():
            if package != folder.package(winner["package"]):
                folder.remove_package(package)
