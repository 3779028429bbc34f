"""Say of studies and workers which kind of task is theirs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kind = sa.Computed("COALESCE(spec #>> '{task,kind}', 'video')", persisted=True)
    op.add_column("study", sa.Column("task_kind", sa.Text(), kind, nullable=False))
    op.add_column("worker", sa.Column("task_kind", sa.Text(), nullable=False, server_default=sa.text("'video'")))


def downgrade() -> None:
    op.drop_column("worker", "task_kind")
    op.drop_column("study", "task_kind")
