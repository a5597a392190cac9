"""The studies of a catalog, and who runs each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from sweeper.catalog import tables
from sweeper.catalog.database import Database
from sweeper.catalog.rows import StudyRow, StudyState
from sweeper.errors import NoStudy, StoreError


class Studies(Database):
    """Studies, and who runs each."""

    def add_study(
        self,
        name: str,
        *,
        digest: str,
        text: str,
        metric: str,
        trials_asked: int,
        file: str = "study.yaml",
        import_paths: Sequence[str] = (),
    ) -> StudyRow:
        """The study of that name, made now if there is none."""
        found = self.find_study(name)
        if found is not None:
            return found
        try:
            with self.write() as connection:
                connection.execute(
                    tables.studies.insert().values(
                        name=name,
                        state="stopped",
                        history=name,
                        digest=digest,
                        text=text,
                        file=file,
                        import_paths=list(import_paths),
                        metric=metric,
                        trials_asked=trials_asked,
                        created_at=time.time(),
                    )
                )
        except StoreError as error:
            if not isinstance(error.__cause__, sa.exc.IntegrityError):
                raise
            # Another orchestrator made it between our look and our insert; the lease decides who runs it.
        return self.study(name)

    def find_study(self, name: str) -> StudyRow | None:
        rows = self.rows(sa.select(tables.studies).where(tables.studies.c.name == name))
        return _study(rows[0]) if rows else None

    def study(self, name: str) -> StudyRow:
        """The study of that name.

        Raises:
            NoStudy: there is none; the message lists those there are.
        """
        found = self.find_study(name)
        if found is None:
            names = ", ".join(study.name for study in self.studies()) or f"none yet in {self.place}"
            raise NoStudy(f"no study named {name!r} here; studies: {names}")
        return found

    def studies(self) -> list[StudyRow]:
        """All studies, oldest first."""
        return [_study(row) for row in self.rows(sa.select(tables.studies).order_by(tables.studies.c.id))]

    def set_study(self, study_id: int, **columns: Any) -> None:
        """Write columns of a study: ``state``, ``winner``, ``run_id``, ``tracking_uri``."""
        with self.write() as connection:
            connection.execute(tables.studies.update().where(tables.studies.c.id == study_id).values(**columns))

    def reset_study(self, study_id: int, state: StudyState = "stopped") -> None:
        """Forget all trials of a study, as if it had just been added; its owner stays.

        Args:
            state: with ``failed``, the next start also removes what lies elsewhere of it, and begins anew.
        """
        trials = sa.select(tables.trials.c.id).where(tables.trials.c.study_id == study_id)
        with self.write() as connection:
            connection.execute(tables.epochs.delete().where(tables.epochs.c.trial_id.in_(trials)))
            connection.execute(tables.weights.delete().where(tables.weights.c.trial_id.in_(trials)))
            connection.execute(tables.trials.delete().where(tables.trials.c.study_id == study_id))
            connection.execute(
                tables.studies.update()
                .where(tables.studies.c.id == study_id)
                .values(state=state, winner=None, run_id=None, created_at=time.time())
            )

    def remove_study(self, study_id: int) -> bool:
        """Remove the row of a study that was reset, unless somebody has taken it since; say whether it went."""
        with self.write(fenced=False) as connection:
            done = connection.execute(
                tables.studies.delete().where(tables.studies.c.id == study_id, tables.studies.c.owner.is_(None))
            )
            return done.rowcount == 1

    def swap_owner(self, study_id: int, *, expected: str | None, beats: int | None = None, **columns: Any) -> bool:
        """Write the owner's columns if the owner still is ``expected``; say whether it was.

        Args:
            study_id: of the study.
            expected: whom the caller took for the owner.
            beats: how often the caller knows the owner's heart to have beaten; once more, and nothing is written.
        """
        unchanged = [tables.studies.c.owner.is_not_distinct_from(expected)]
        if beats is not None:
            unchanged.append(tables.studies.c.beats == beats)
        return self._set_owner(study_id, unchanged, columns)

    def beat(self, study_id: int, owner: str, *, at: float) -> bool:
        """A sign of life of ``owner`` at that time (seconds since 1970); ``False`` if it is not the owner any more."""
        beat = {"heartbeat_at": at, "beats": tables.studies.c.beats + 1}
        return self._set_owner(study_id, [tables.studies.c.owner == owner], beat)

    def set_job(self, seen: StudyRow, job: str, address: str) -> bool:
        """Record the Ray job that shall run a study; ``False`` if anybody has taken or submitted it since ``seen``."""
        unchanged = [
            tables.studies.c.owner.is_not_distinct_from(seen.owner),
            tables.studies.c.beats == seen.beats,
            tables.studies.c.job.is_not_distinct_from(seen.job),
        ]
        return self._set_owner(seen.id, unchanged, {"job": job, "job_address": address})

    def _set_owner(
        self, study_id: int, unchanged: Sequence[sa.ColumnElement[bool]], columns: Mapping[str, Any]
    ) -> bool:
        # Each is its own fence: what it asks of the owner it asks in the same statement.
        with self.write(fenced=False) as connection:
            done = connection.execute(
                tables.studies.update().where(tables.studies.c.id == study_id, *unchanged).values(**columns)
            )
            return done.rowcount == 1


def _study(row: Row[Any]) -> StudyRow:
    columns = {**row._mapping}
    said = columns["winner"] or {}
    # Of a first winner that is only now looked at nothing is known but the look.
    columns["winner"] = said if said.keys() - {"looks"} else None
    return StudyRow(**columns, looks=said.get("looks", []))


def winner_without_model(connection: Connection, study_id: int) -> dict[str, Any] | None:
    """A study's winner as one whose model is still to be handed over."""
    winner = connection.scalar(sa.select(tables.studies.c.winner).where(tables.studies.c.id == study_id))
    return None if winner is None else {key: value for key, value in winner.items() if key != "model_version"}
