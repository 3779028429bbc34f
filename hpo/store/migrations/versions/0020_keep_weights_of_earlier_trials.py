"""Keep which weights the trials of earlier studies started from, that a study has taken over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("earlier_trial", sa.Column("weights", postgresql.JSONB()))
    op.create_check_constraint(op.f("earlier_trial_weights_check"), "earlier_trial", "jsonb_typeof(weights) = 'object'")


def downgrade() -> None:
    op.drop_column("earlier_trial", "weights")
