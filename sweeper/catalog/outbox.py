"""What the tracker has not heard of yet, read off the `delivered` marks of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from sweeper.catalog import tables
from sweeper.catalog.database import Database
from sweeper.catalog.rows import ENDED, EpochRow, TrialRow
from sweeper.catalog.studies import winner_without_model


class Outbox(Database):
    """What the tracker has not heard of yet."""

    def owed_trials(self, study_id: int) -> list[TrialRow]:
        """Trials that have no run yet, or whose recipe or end the tracker has not heard of."""
        query = (
            sa.select(tables.trials)
            .where(
                tables.trials.c.study_id == study_id,
                sa.or_(
                    tables.trials.c.run_id.is_(None),
                    ~tables.trials.c.described,
                    sa.and_(tables.trials.c.state.in_(ENDED), ~tables.trials.c.delivered),
                ),
            )
            .order_by(tables.trials.c.number)
        )
        return [TrialRow(**row._mapping) for row in self.rows(query)]

    def owed_files(self, study_id: int) -> list[TrialRow]:
        """Trials with a run, whose files the tracker does not have."""
        query = (
            sa.select(tables.trials)
            .where(
                tables.trials.c.study_id == study_id,
                tables.trials.c.run_id.is_not(None),
                ~tables.trials.c.files_delivered,
            )
            .order_by(tables.trials.c.number)
        )
        return [TrialRow(**row._mapping) for row in self.rows(query)]

    def owed_epochs(self, study_id: int, most: int) -> list[tuple[str, EpochRow]]:
        """Epochs not delivered yet, oldest first, each with the run of its trial."""
        query = (
            sa.select(tables.trials.c.run_id, tables.epochs)
            .join(tables.trials, tables.trials.c.id == tables.epochs.c.trial_id)
            .where(
                tables.trials.c.study_id == study_id, ~tables.epochs.c.delivered, tables.trials.c.run_id.is_not(None)
            )
            .order_by(tables.epochs.c.id)
            .limit(most)
        )
        return [
            (row.run_id, EpochRow(**{key: value for key, value in row._mapping.items() if key != "run_id"}))
            for row in self.rows(query)
        ]

    def owes(self, study_id: int) -> bool:
        """Whether the tracker has not heard of everything yet."""
        undelivered = (
            sa.select(tables.epochs.c.id)
            .join(tables.trials, tables.trials.c.id == tables.epochs.c.trial_id)
            .where(tables.trials.c.study_id == study_id, ~tables.epochs.c.delivered)
            .limit(1)
        )
        return bool(self.owed_trials(study_id) or self.owed_files(study_id) or self.rows(undelivered))

    def owe_again(self, study_id: int, tracking_uri: str) -> None:
        """Forget what was delivered, the model too: the tracker at ``tracking_uri`` has heard of nothing yet."""
        trials = sa.select(tables.trials.c.id).where(tables.trials.c.study_id == study_id)
        unheard = {"run_id": None, "described": False, "files_delivered": False, "delivered": False}
        with self.write() as connection:
            connection.execute(
                tables.studies.update()
                .where(tables.studies.c.id == study_id)
                .values(
                    run_id=None,
                    tracking_uri=tracking_uri,
                    winner=winner_without_model(connection, study_id),
                )
            )
            connection.execute(tables.trials.update().where(tables.trials.c.study_id == study_id).values(unheard))
            connection.execute(
                tables.epochs.update().where(tables.epochs.c.trial_id.in_(trials)).values(delivered=False)
            )

    def owe_run_again(self, run_id: str) -> None:
        """Forget what was delivered of the trial with that run: the run is gone, and the trial needs another."""
        trials = sa.select(tables.trials.c.id).where(tables.trials.c.run_id == run_id)
        unheard = {"run_id": None, "described": False, "files_delivered": False, "delivered": False}
        with self.write() as connection:
            connection.execute(
                tables.epochs.update().where(tables.epochs.c.trial_id.in_(trials)).values(delivered=False)
            )
            connection.execute(tables.trials.update().where(tables.trials.c.run_id == run_id).values(unheard))

    def mark_delivered(self, epoch_ids: Sequence[int]) -> None:
        """Remember that these epochs have reached the tracker."""
        with self.write() as connection:
            connection.execute(tables.epochs.update().where(tables.epochs.c.id.in_(epoch_ids)).values(delivered=True))
