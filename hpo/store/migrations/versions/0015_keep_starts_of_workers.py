"""Keep when workers started, and find their faults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("start_id", sa.Text()))
    op.add_column("worker", sa.Column("cleared_at", sa.DateTime(timezone=True)))
    op.create_index(
        "attempt_fault_idx", "attempt", ["worker", "ended_at"], postgresql_where=sa.text("fault IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("attempt_fault_idx", table_name="attempt")
    op.drop_column("worker", "cleared_at")
    op.drop_column("worker", "start_id")
