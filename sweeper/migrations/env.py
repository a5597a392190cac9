"""What Alembic runs: the steps that are missing, on the connection and in the transaction that it is given."""

from __future__ import annotations

from alembic import context

from sweeper.catalog import tables

# Optuna and MLflow keep Alembic's usual version table in the same database.
context.configure(connection=context.config.attributes["connection"], version_table=tables.version.name)
context.run_migrations()
