"""A study's history in the search, written anew where what the catalog says of it has changed.

The new history stands beside the old one, under a name of its own, until one write of the catalog makes it the one in
use; then the old one goes. A kill before that write leaves the study as it was, a kill after it a leftover that the
next start removes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sweeper.catalog import Catalog, StudyRow, TrialRow
from sweeper.search import forget_others, rebuild, told_values
from sweeper.study import Study


def write_anew(catalog: Catalog, row: StudyRow, study: Study, trials: Sequence[TrialRow]) -> str:
    """Write a history beside the study's own; its name, for the catalog's column ``history``.

    Args:
        catalog: has the epochs, and the database.
        row: the study's row, which says what its history is called now.
        study: what study.yaml says, whose space the history has.
        trials: all its trials, as they shall stand in it; those that the search did not ask for do not.

    Raises:
        StoreError: a trial is missing in the catalog, or the database cannot be reached.
    """
    version = row.history.removeprefix(row.name).removeprefix("@")
    name = f"{row.name}@{int(version or 1) + 1}"
    told = told_values(catalog.url, row.history)
    searched = [trial for trial in trials if trial.role == "search"]
    rebuild(study, catalog.url, name, searched, catalog.epochs(row.id), told)
    return name


def remove_old(catalog: Catalog, row: StudyRow) -> None:
    """Remove the histories of the study that are not in use.

    Raises:
        StoreError: the database cannot be reached.
    """
    forget_others(row.name, catalog.url, keep=catalog.study(row.name).history)
