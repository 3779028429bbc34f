"""Say of studies, workers and attempts how many GPUs they need or have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    needed = sa.Computed("COALESCE((spec #>> '{resources,gpus}')::integer, 1)", persisted=True)
    op.add_column("study", sa.Column("gpus", sa.Integer(), needed, nullable=False))
    for table in ("worker", "attempt"):
        op.add_column(table, sa.Column("gpus", sa.Integer(), nullable=False, server_default=sa.text("1")))
        op.create_check_constraint(op.f(f"{table}_gpus_check"), table, "gpus >= 1")


def downgrade() -> None:
    for table in ("attempt", "worker", "study"):
        op.drop_column(table, "gpus")
