"""Keep what was wrong with the machines of crashed attempts, and which workers get no trials because of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_FAULTS = "fault IN ('architecture', 'device', 'files', 'hang', 'kernel', 'process', 'storage', 'system')"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.add_column("attempt", sa.Column("fault", sa.Text()))
    op.create_check_constraint(op.f("attempt_fault_check"), "attempt", _FAULTS)
    op.create_check_constraint(op.f("attempt_fault_ended_check"), "attempt", "fault IS NULL OR ended_as = 'crashed'")
    op.add_column("worker", sa.Column("faults", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("worker", sa.Column("faulty_since", time))
    op.add_column("worker", sa.Column("faulted_at", time))
    op.add_column("worker", sa.Column("fault", sa.Text()))
    op.add_column("worker", sa.Column("fault_message", sa.Text()))
    op.add_column("worker", sa.Column("quarantined_at", time))
    op.add_column("worker", sa.Column("quarantined_until", time))
    op.create_check_constraint(op.f("worker_faults_check"), "worker", "faults >= 0")
    op.create_check_constraint(op.f("worker_fault_check"), "worker", _FAULTS)
    op.create_check_constraint(
        op.f("worker_faulty_check"),
        "worker",
        "(faults > 0) = (faulty_since IS NOT NULL) AND (faults > 0) = (faulted_at IS NOT NULL)"
        " AND (faults > 0) = (fault IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("worker_quarantine_check"),
        "worker",
        "(quarantined_at IS NULL) = (quarantined_until IS NULL) AND (quarantined_at IS NULL OR faults > 0)",
    )


def downgrade() -> None:
    for name in ("quarantine", "faulty", "fault", "faults"):
        op.drop_constraint(op.f(f"worker_{name}_check"), "worker", type_="check")
    for column in (
        "quarantined_until",
        "quarantined_at",
        "fault_message",
        "fault",
        "faulted_at",
        "faulty_since",
        "faults",
    ):
        op.drop_column("worker", column)
    for name in ("fault_ended", "fault"):
        op.drop_constraint(op.f(f"attempt_{name}_check"), "attempt", type_="check")
    op.drop_column("attempt", "fault")
