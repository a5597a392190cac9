"""The trials of a catalog: their rows, epochs and weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from sweeper.catalog import tables
from sweeper.catalog.database import Database
from sweeper.catalog.rows import ENDED, EpochRow, Failure, Role, TrialRow, TrialState, WeightsRow
from sweeper.catalog.studies import winner_without_model
from sweeper.errors import StoreError
from trials.result import EpochReport, WeightsFile


class Trials(Database):
    """Trials, their epochs and the weights they left."""

    def add_trial(
        self,
        study_id: int,
        number: int,
        *,
        params: Mapping[str, Any],
        recipe: Mapping[str, Any],
        role: Role = "search",
        state: TrialState = "running",
    ) -> TrialRow:
        """Record that a trial starts; one that is known already stays as it is.

        So it can be said again where the answer was lost, as each thing can that is recorded here.
        """
        new: dict[str, Any] = {
            "study_id": study_id,
            "number": number,
            "role": role,
            "state": state,
            "params": dict(params),
            "recipe": dict(recipe),
            "attempts": [],
            "facts": {},
            "started_at": time.time(),
        }
        with self.write() as connection:
            known = sa.select(tables.trials.c.id).where(
                tables.trials.c.study_id == study_id, tables.trials.c.number == number
            )
            if connection.scalar(known) is None:
                connection.execute(tables.trials.insert().values(new))
        return self.trial(study_id, number)

    def set_trial(self, trial_id: int, **columns: Any) -> None:
        """Write columns of a trial: ``state``, ``run_id`` and what the tracker has heard."""
        with self.write() as connection:
            connection.execute(tables.trials.update().where(tables.trials.c.id == trial_id).values(**columns))

    def end_trial(
        self,
        trial_id: int,
        state: TrialState,
        *,
        value: float | None = None,
        reason: str | None = None,
        failure: Failure | None = None,
        facts: Mapping[str, Any] | None = None,
        weights: Sequence[tuple[WeightsFile, str, float]] = (),
    ) -> None:
        """Record how a trial ended, and in the same transaction the weights it leaves; an end that is known stays.

        Args:
            value: what the sampler is told: the best value on the metric.
            reason: why it failed, in one line.
            failure: which kind of failure that is.
            facts: what else is known of it: parameters, seconds, device, notes.
            weights: file, path relative to the study's folder, value on the metric.
        """
        with self.write() as connection:
            ended = connection.execute(
                tables.trials.update()
                .where(tables.trials.c.id == trial_id, tables.trials.c.state.not_in(ENDED))
                .values(
                    state=state,
                    value=value,
                    reason=reason,
                    failure=failure,
                    facts=dict(facts or {}),
                    ended_at=time.time(),
                    delivered=False,
                )
            )
            if ended.rowcount and weights:
                connection.execute(tables.weights.delete().where(tables.weights.c.trial_id == trial_id))
                connection.execute(
                    tables.weights.insert(),
                    [
                        {
                            "trial_id": trial_id,
                            "kind": file.kind,
                            "path": path,
                            "value": worth,
                            "metrics": file.metrics,
                            "epoch": file.epoch,
                            "bytes": file.bytes,
                            "sha256": file.sha256,
                        }
                        for file, path, worth in weights
                    ],
                )

    def extend_trials(self, study_id: int, recipes: Mapping[int, Mapping[str, Any]]) -> None:
        """Record that complete trials go on, and with that their study: all of it, or nothing.

        Their weights stay until there are others. What the tracker knows of the trials and of the study's end is out of
        date.

        Args:
            recipes: from a trial's id to its recipe with one more extension.
        """
        unheard = {"files_delivered": False, "delivered": False}
        with self.write() as connection:
            for trial_id, recipe in recipes.items():
                connection.execute(
                    tables.trials.update()
                    .where(tables.trials.c.id == trial_id)
                    .values(state="waiting", recipe=dict(recipe), reason=None, **unheard)
                )
            connection.execute(
                tables.studies.update()
                .where(tables.studies.c.id == study_id)
                .values(state="stopped", winner=winner_without_model(connection, study_id))
            )

    def go_on(self, study_id: int, *, retried: Sequence[TrialRow] = (), **columns: Any) -> None:
        """Record that a study goes on which had ended or was stopped, and which failed trials do: all, or nothing.

        A trial that is retried waits again, with all its attempts and a mark after them, so that those before it do not
        count. What the tracker knows of it and of the study's end is out of date.

        Args:
            study_id: of the study.
            retried: failed trials.
            columns: of the study, to be written with that.
        """
        now = time.time()
        with self.write() as connection:
            for trial in retried:
                connection.execute(
                    tables.trials.update()
                    .where(tables.trials.c.id == trial.id)
                    .values(
                        state="waiting",
                        failure=None,
                        reason=None,
                        ended_at=None,
                        facts={},
                        attempts=[*trial.attempts, {"at": now, "kind": "retry", "reason": trial.reason}],
                        files_delivered=False,
                        delivered=False,
                    )
                )
            connection.execute(
                tables.studies.update()
                .where(tables.studies.c.id == study_id)
                .values(state="stopped", winner=winner_without_model(connection, study_id), **columns)
            )

    def drop_extension(self, trial: TrialRow, reason: str) -> None:
        """Record that a trial's newest extension failed: it is the complete trial again that it was before."""
        recipe = {**trial.recipe, "extensions": trial.recipe["extensions"][:-1]}
        self.set_trial(trial.id, state="complete", recipe=recipe, reason=reason, files_delivered=False, delivered=False)

    def forget_weights(self, study_id: int, paths: Sequence[str]) -> None:
        """Forget kept weights whose files are about to go: all of them in one write."""
        trials = sa.select(tables.trials.c.id).where(tables.trials.c.study_id == study_id)
        with self.write() as connection:
            connection.execute(
                tables.weights.delete().where(tables.weights.c.trial_id.in_(trials), tables.weights.c.path.in_(paths))
            )

    def trial(self, study_id: int, number: int) -> TrialRow:
        """One trial by its number.

        Raises:
            StoreError: there is none.
        """
        rows = self.rows(
            sa.select(tables.trials).where(tables.trials.c.study_id == study_id, tables.trials.c.number == number)
        )
        if not rows:
            raise StoreError(f"trial {number} is not in the catalog")
        return TrialRow(**rows[0]._mapping)

    def trials(self, study_id: int) -> list[TrialRow]:
        """All trials of a study by number."""
        query = sa.select(tables.trials).where(tables.trials.c.study_id == study_id).order_by(tables.trials.c.number)
        return [TrialRow(**row._mapping) for row in self.rows(query)]

    def count_trials(self, study_id: int, role: Role | None = None) -> dict[TrialState, int]:
        """How many trials are in each state, of all or of those with one role."""
        is_counted = tables.trials.c.study_id == study_id
        if role is not None:
            is_counted &= tables.trials.c.role == role
        query = (
            sa.select(tables.trials.c.state, sa.func.count().label("n"))
            .where(is_counted)
            .group_by(tables.trials.c.state)
        )
        return {row.state: row.n for row in self.rows(query)}

    def add_epoch(self, trial_id: int, report: EpochReport) -> bool:
        """Record a report; ``False`` if that epoch of that trial is known already."""
        try:
            with self.write() as connection:
                connection.execute(
                    tables.epochs.insert().values(
                        trial_id=trial_id,
                        epoch=report.epoch,
                        metrics=report.metrics,
                        seconds=report.seconds,
                        reported_at=time.time(),
                    )
                )
        except StoreError as error:
            if isinstance(error.__cause__, sa.exc.IntegrityError):
                return False
            raise
        return True

    def epochs(self, study_id: int) -> dict[int, list[EpochRow]]:
        """The epochs of all trials of a study: trial id -> epochs in order."""
        query = (
            sa.select(tables.epochs)
            .join(tables.trials, tables.trials.c.id == tables.epochs.c.trial_id)
            .where(tables.trials.c.study_id == study_id)
            .order_by(tables.epochs.c.trial_id, tables.epochs.c.epoch)
        )
        grouped: dict[int, list[EpochRow]] = {}
        for row in self.rows(query):
            grouped.setdefault(row.trial_id, []).append(EpochRow(**row._mapping))
        return grouped

    def weights(self, study_id: int, *, of: TrialState | None = None) -> list[WeightsRow]:
        """All kept weights of a study, or those of its trials in one state, in the order of trials.

        A trial that is being extended has those of before.
        """
        query = (
            sa.select(
                tables.trials.c.number.label("trial"),
                tables.trials.c.role,
                *[c for c in tables.weights.c if c.name not in ("id", "trial_id")],
            )
            .join(tables.weights, tables.trials.c.id == tables.weights.c.trial_id)
            .where(tables.trials.c.study_id == study_id, tables.trials.c.state == of if of is not None else sa.true())
            .order_by(tables.trials.c.number, tables.weights.c.id)
        )
        return [WeightsRow(**row._mapping) for row in self.rows(query)]
