"""What each trial is for: until now all were the search's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("sweeper_trials", sa.Column("role", sa.String(16)))
    op.execute("UPDATE sweeper_trials SET role = 'search'")
    with op.batch_alter_table("sweeper_trials") as trials:
        trials.alter_column("role", existing_type=sa.String(16), nullable=False)
