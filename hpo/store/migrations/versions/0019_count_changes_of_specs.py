"""Count how often the spec of a study was changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.create_check_constraint(op.f("study_revision_check"), "study", "revision >= 1")


def downgrade() -> None:
    op.drop_constraint(op.f("study_revision_check"), "study", type_="check")
    op.drop_column("study", "revision")
