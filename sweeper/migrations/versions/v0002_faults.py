"""What is asked of an orchestrator, where the history is, what befell each trial, and the beats of a lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("sweeper_studies", sa.Column("request", sa.String(16)))
    op.add_column("sweeper_studies", sa.Column("history", sa.String(80)))
    op.add_column("sweeper_studies", sa.Column("beats", sa.Integer))
    op.add_column("sweeper_trials", sa.Column("failure", sa.String(16)))
    op.add_column("sweeper_trials", sa.Column("attempts", sa.JSON))
    op.execute("UPDATE sweeper_studies SET history = name, beats = 0")
    op.execute("UPDATE sweeper_trials SET attempts = '[]'")
    with op.batch_alter_table("sweeper_studies") as studies:
        studies.alter_column("history", existing_type=sa.String(80), nullable=False)
        studies.alter_column("beats", existing_type=sa.Integer, nullable=False)
    with op.batch_alter_table("sweeper_trials") as trials:
        trials.alter_column("attempts", existing_type=sa.JSON, nullable=False)
