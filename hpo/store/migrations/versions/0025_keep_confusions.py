"""Keep how the newest validation of a trial classified its videos."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "confusion",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("counts", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("attempt >= 1", name=op.f("confusion_attempt_check")),
        sa.CheckConstraint("step >= 1", name=op.f("confusion_step_check")),
        sa.CheckConstraint("jsonb_typeof(counts) = 'object'", name=op.f("confusion_counts_check")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("confusion_trial_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", name=op.f("confusion_pkey")),
    )


def downgrade() -> None:
    op.drop_table("confusion")
