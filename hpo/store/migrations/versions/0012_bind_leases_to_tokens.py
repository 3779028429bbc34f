"""Bind leases to the token that claimed, and take lease ids out of the events that people read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trial", sa.Column("lease_token", sa.BigInteger(), nullable=True))
    op.execute("UPDATE event SET detail = detail - 'lease_id' WHERE kind = 'trial.claimed'")


def downgrade() -> None:
    op.drop_column("trial", "lease_token")
