"""Keep every opening of a sealed test list, and what it found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "test_opening",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("test_list", sa.Text(), nullable=False),
        sa.Column("split", sa.Integer(), nullable=False),
        sa.Column("dataset_version", sa.Text(), nullable=False),
        sa.Column("opened_at", time, nullable=False),
        sa.Column("videos", sa.Integer()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("checkpoint", sa.Text()),
        sa.Column("host", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("score", JSONB()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("recorded_at", time, server_default=_NOW, nullable=False),
        sa.CheckConstraint("test_list ~ '^[0-9a-f]{32}$'", name=op.f("test_opening_test_list_check")),
        sa.CheckConstraint("checkpoint ~ '^[0-9a-f]{64}$'", name=op.f("test_opening_checkpoint_check")),
        sa.CheckConstraint("split >= 1", name=op.f("test_opening_split_check")),
        sa.CheckConstraint("videos >= 1", name=op.f("test_opening_videos_check")),
        sa.CheckConstraint("jsonb_typeof(score) = 'object'", name=op.f("test_opening_score_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("test_opening_pkey")),
    )
    op.create_index("test_opening_list_idx", "test_opening", ["test_list", "opened_at"])


def downgrade() -> None:
    op.drop_table("test_opening")
