"""Which Ray job runs a study that was detached, and where to ask for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("sweeper_studies", sa.Column("job", sa.String(96)))
    op.add_column("sweeper_studies", sa.Column("job_address", sa.Text))
