"""What changes from second to second while studies run, asked of the database in a few small queries."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa

from sweeper.catalog import tables
from sweeper.catalog.database import Database
from sweeper.catalog.rows import AtWork


class Glance(Database):
    """What runs now, and how good the best is."""

    def at_work(self, study_id: int) -> list[AtWork]:
        """The trials of a study that run, each with its newest report, by number."""
        trials, epochs = tables.trials.c, tables.epochs
        newest = sa.select(sa.func.max(epochs.c.epoch)).where(epochs.c.trial_id == trials.id).correlate(tables.trials)
        query = (
            sa.select(
                trials.number,
                trials.params,
                trials.recipe,
                trials.started_at,
                epochs.c.epoch,
                epochs.c.metrics,
                epochs.c.reported_at,
            )
            .outerjoin(epochs, (epochs.c.trial_id == trials.id) & (epochs.c.epoch == newest.scalar_subquery()))
            .where(trials.study_id == study_id, trials.state == "running")
            .order_by(trials.number)
        )
        return [AtWork(**row._mapping) for row in self.rows(query)]

    def best_value(self, study_id: int, direction: Literal["maximize", "minimize"]) -> float | None:
        """The value at the top of the leaderboard, trunks left out; ``None`` while there are no weights."""
        best = sa.func.max if direction == "maximize" else sa.func.min
        query = (
            sa.select(best(tables.weights.c.value).label("value"))
            .join(tables.trials, tables.trials.c.id == tables.weights.c.trial_id)
            .where(tables.trials.c.study_id == study_id, tables.trials.c.role != "trunk")
        )
        (row,) = self.rows(query)
        value: float | None = row.value
        return value
