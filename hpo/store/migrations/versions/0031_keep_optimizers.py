"""Keep which optimizers live, so that they share the studies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("clock_timestamp()")
    op.create_table(
        "optimizer",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("steps", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("busy_seconds", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.CheckConstraint("length(owner) >= 1", name=op.f("optimizer_owner_check")),
        sa.CheckConstraint("steps >= 0", name=op.f("optimizer_steps_check")),
        sa.CheckConstraint(
            "busy_seconds >= 0 AND busy_seconds < 'Infinity'", name=op.f("optimizer_busy_seconds_check")
        ),
        sa.PrimaryKeyConstraint("owner", name=op.f("optimizer_pkey")),
    )


def downgrade() -> None:
    op.drop_table("optimizer")
