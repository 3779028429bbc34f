"""Say of studies and workers of how many machines their trials are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    needed = sa.Computed("COALESCE((spec #>> '{resources,nodes}')::integer, 1)", persisted=True)
    op.add_column("study", sa.Column("nodes", sa.Integer(), needed, nullable=False))
    op.add_column("worker", sa.Column("nodes", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.create_check_constraint(op.f("worker_nodes_check"), "worker", "nodes >= 1")


def downgrade() -> None:
    for table in ("worker", "study"):
        op.drop_column(table, "nodes")
