"""The tables of the catalog. A change here needs a step in `sweeper.migrations`."""

from __future__ import annotations

import sqlalchemy as sa

schema = sa.MetaData()

# Optuna keeps its tables in the same database, among them `studies` and `trials`: hence the prefix.
studies = sa.Table(
    "sweeper_studies",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("request", sa.String(16)),
    sa.Column("history", sa.String(80), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("import_paths", sa.JSON, nullable=False),
    sa.Column("metric", sa.String(64), nullable=False),
    sa.Column("trials_asked", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("winner", sa.JSON(none_as_null=True)),
    sa.Column("run_id", sa.String(64)),
    sa.Column("tracking_uri", sa.Text),
    sa.Column("owner", sa.String(64)),
    sa.Column("owner_host", sa.String(255)),
    sa.Column("owner_machine", sa.String(255)),
    sa.Column("owner_pid", sa.Integer),
    sa.Column("owner_pid_since", sa.Float),
    sa.Column("owner_since", sa.Float),
    sa.Column("heartbeat_at", sa.Float),
    sa.Column("beats", sa.Integer, nullable=False, default=0),
    sa.Column("job", sa.String(96)),
    sa.Column("job_address", sa.Text),
)
trials = sa.Table(
    "sweeper_trials",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.ForeignKey("sweeper_studies.id"), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("params", sa.JSON, nullable=False),
    sa.Column("recipe", sa.JSON, nullable=False),
    sa.Column("value", sa.Float),
    sa.Column("reason", sa.Text),
    sa.Column("failure", sa.String(16)),
    sa.Column("attempts", sa.JSON, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("run_id", sa.String(64)),
    sa.Column("described", sa.Boolean, nullable=False, default=False),
    sa.Column("files_delivered", sa.Boolean, nullable=False, default=False),
    sa.Column("delivered", sa.Boolean, nullable=False, default=False, index=True),
    sa.UniqueConstraint("study_id", "number"),
)
epochs = sa.Table(
    "sweeper_epochs",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.ForeignKey("sweeper_trials.id"), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("reported_at", sa.Float, nullable=False),
    sa.Column("delivered", sa.Boolean, nullable=False, default=False, index=True),
    sa.UniqueConstraint("trial_id", "epoch"),
)
weights = sa.Table(
    "sweeper_weights",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.ForeignKey("sweeper_trials.id"), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.UniqueConstraint("trial_id", "kind"),
)

# Alembic's own table, by which it knows the steps that were taken; by itself, since no step makes it.
version = sa.Table(
    "sweeper_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="sweeper_version_pkc"),
)
