"""Let a worker run trials of several kinds of tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kinds = postgresql.ARRAY(sa.Text())
    op.add_column("worker", sa.Column("task_kinds", kinds, nullable=False, server_default=sa.text("'{video}'")))
    op.execute("UPDATE worker SET task_kinds = ARRAY[task_kind]")
    op.drop_column("worker", "task_kind")


def downgrade() -> None:
    op.add_column("worker", sa.Column("task_kind", sa.Text(), nullable=False, server_default=sa.text("'video'")))
    op.execute("UPDATE worker SET task_kind = task_kinds[1]")
    op.drop_column("worker", "task_kinds")
