"""Keep what a person notes about a study."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("note", sa.Text()))
    op.create_check_constraint("note_check", "study", "length(note) BETWEEN 1 AND 20000")


def downgrade() -> None:
    # Its constraint goes with it.
    op.drop_column("study", "note")
