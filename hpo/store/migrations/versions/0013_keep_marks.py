"""Keep the marks by which stopping rules compare trials."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The marks of studies that are there are made by the program that first needs them.
    op.add_column("study", sa.Column("marked", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "mark",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("board", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("own", sa.Double(), nullable=True),
        sa.CheckConstraint("place >= 0", name=op.f("mark_place_check")),
        sa.CheckConstraint("value > '-Infinity' AND value < 'Infinity'", name=op.f("mark_value_check")),
        sa.CheckConstraint("own > '-Infinity' AND own < 'Infinity'", name=op.f("mark_own_check")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("mark_trial_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "board", "place", name=op.f("mark_pkey")),
    )
    op.create_index("mark_place_idx", "mark", ["study_id", "board", "place", "value", "trial_id"])


def downgrade() -> None:
    op.drop_table("mark")
    op.drop_column("study", "marked")
