"""Hold the trials that a stopping rule paused until they are promoted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trial", sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_check_constraint(op.f("trial_held_check"), "trial", "NOT held OR state = 'paused'")


def downgrade() -> None:
    op.drop_constraint(op.f("trial_held_check"), "trial", type_="check")
    op.drop_column("trial", "held")
