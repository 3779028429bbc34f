"""Keep which weights a trial started from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trial", sa.Column("weights", postgresql.JSONB()))


def downgrade() -> None:
    op.drop_column("trial", "weights")
