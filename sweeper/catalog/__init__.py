"""The catalog: studies, trials, epochs and weights in SQL. The orchestrator alone writes it.

It is also the outbox of the tracker: rows carry a `delivered` mark, so what MLflow is still owed survives a restart
and is derived, never kept twice.
"""

from __future__ import annotations

from sweeper.catalog.glance import Glance
from sweeper.catalog.outbox import Outbox
from sweeper.catalog.rows import (
    ENDED,
    FIRST_UNSEARCHED,
    AtWork,
    EpochRow,
    Failure,
    Request,
    Role,
    StudyRow,
    StudyState,
    TrialRow,
    TrialState,
    WeightsRow,
)
from sweeper.catalog.studies import Studies
from sweeper.catalog.trials import Trials

__all__ = [
    "ENDED",
    "FIRST_UNSEARCHED",
    "AtWork",
    "Catalog",
    "EpochRow",
    "Failure",
    "Request",
    "Role",
    "StudyRow",
    "StudyState",
    "TrialRow",
    "TrialState",
    "WeightsRow",
]


class Catalog(Studies, Trials, Outbox, Glance):
    """All that is known about the studies of one home.

    Raises:
        StoreError: the database cannot be reached or written.
    """
