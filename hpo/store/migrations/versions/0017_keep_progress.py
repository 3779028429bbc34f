"""Keep how far running attempts are, and which hosts get no trials because of the faults of several of their workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")
_FAULTS = "fault IN ('architecture', 'device', 'files', 'storage', 'system')"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.add_column("attempt", sa.Column("progress", JSONB()))
    op.add_column("attempt", sa.Column("progress_at", time))
    op.create_check_constraint(
        op.f("attempt_progress_check"),
        "attempt",
        "jsonb_typeof(progress) = 'object' AND (progress IS NULL) = (progress_at IS NULL)",
    )
    op.create_table(
        "host_quarantine",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=False),
        sa.Column("fault_message", sa.Text()),
        sa.Column("faults", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("faulted_at", time, server_default=_NOW, nullable=False),
        sa.Column("quarantined_at", time, server_default=_NOW, nullable=False),
        sa.Column("quarantined_until", time, nullable=False),
        sa.CheckConstraint(_FAULTS, name=op.f("host_quarantine_fault_check")),
        sa.CheckConstraint("faults >= 0", name=op.f("host_quarantine_faults_check")),
        sa.PrimaryKeyConstraint("host", name=op.f("host_quarantine_pkey")),
    )


def downgrade() -> None:
    op.drop_table("host_quarantine")
    op.drop_constraint(op.f("attempt_progress_check"), "attempt", type_="check")
    op.drop_column("attempt", "progress_at")
    op.drop_column("attempt", "progress")
