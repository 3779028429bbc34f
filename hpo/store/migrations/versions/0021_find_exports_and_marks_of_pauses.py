"""Find events about checkpoints without reading those of the whole study, and make the marks of `curves` with pauses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "event_checkpoint_idx",
        "event",
        ["study_id", "kind", "trial_id"],
        postgresql_where=sa.text("kind IN ('trial.exported', 'trial.checkpoint_removed')"),
    )
    # These studies had no marks; they get them when they are first needed.
    op.execute(
        'UPDATE study SET marked = false WHERE spec @> \'{"early_stopping": {"name": "curves", "pause": true}}\''
    )


def downgrade() -> None:
    op.drop_index("event_checkpoint_idx", table_name="event")
