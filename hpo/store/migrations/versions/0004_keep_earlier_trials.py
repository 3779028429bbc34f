"""Keep what a study takes over from earlier ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "earlier_trial",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("place >= 0", name=op.f("earlier_trial_place_check")),
        sa.CheckConstraint("jsonb_typeof(params) = 'object'", name=op.f("earlier_trial_params_check")),
        sa.CheckConstraint(
            "jsonb_typeof(metrics) = 'object' AND NOT jsonb_path_exists(metrics, '$.* ? (@.type() != \"number\")')",
            name=op.f("earlier_trial_metrics_check"),
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("earlier_trial_study_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "place", name=op.f("earlier_trial_pkey")),
    )


def downgrade() -> None:
    op.drop_table("earlier_trial")
