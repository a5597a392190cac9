"""What of a study stays on the disk: what the catalog names, and what its best trials would go on from.

A file goes after the catalog has stopped to name it, and a kill in between leaves it for the next start to remove: all
here may be called again at any time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sweeper.rank.leaderboard import rank

if TYPE_CHECKING:
    from sweeper.catalog import Catalog, StudyRow, WeightsRow
    from sweeper.study_folder import StudyFolder


def best_trials(weights: Iterable[WeightsRow], metric: str) -> list[int]:
    """The numbers of the trials that have weights, by the best of them, best first."""
    return list(dict.fromkeys(row.trial for row in rank(weights, metric)))


def keep_resume_points(weights: Iterable[WeightsRow], metric: str, most: int, folder: StudyFolder) -> list[WeightsRow]:
    """Remove the resume points of all trials that have ``weights`` but the best ``most``; the weights of those."""
    rows = list(weights)
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
        if trial.state in ("pruned", "failed"):
            folder.remove_resume_point(trial.number)
        elif trial.state == "complete":
            for path in folder.weights(trial.number):
                if path not in named:
                    path.unlink(missing_ok=True)
    if winner:
        for package in folder.packages():
            if package != folder.package(winner["package"]):
                shutil.rmtree(package, ignore_errors=True)
