"""The catalog as it was before schemas had numbers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "sweeper_studies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("import_paths", sa.JSON, nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("trials_asked", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("winner", sa.JSON),
        sa.Column("run_id", sa.String(64)),
        sa.Column("tracking_uri", sa.Text),
        sa.Column("owner", sa.String(64)),
        sa.Column("owner_host", sa.String(255)),
        sa.Column("owner_machine", sa.String(255)),
        sa.Column("owner_pid", sa.Integer),
        sa.Column("owner_pid_since", sa.Float),
        sa.Column("owner_since", sa.Float),
        sa.Column("heartbeat_at", sa.Float),
    )
    op.create_table(
        "sweeper_trials",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, sa.ForeignKey("sweeper_studies.id"), nullable=False, index=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("recipe", sa.JSON, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("reason", sa.Text),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("run_id", sa.String(64)),
        sa.Column("described", sa.Boolean, nullable=False),
        sa.Column("files_delivered", sa.Boolean, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False, index=True),
        sa.UniqueConstraint("study_id", "number"),
    )
    op.create_table(
        "sweeper_epochs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("sweeper_trials.id"), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("reported_at", sa.Float, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False, index=True),
        sa.UniqueConstraint("trial_id", "epoch"),
    )
    op.create_table(
        "sweeper_weights",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("sweeper_trials.id"), nullable=False, index=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.UniqueConstraint("trial_id", "kind"),
    )
