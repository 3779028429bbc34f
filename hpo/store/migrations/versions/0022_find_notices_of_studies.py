"""Find what a study was told about itself without reading all of its events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "event_notice_idx",
        "event",
        ["study_id", "kind", "transaction_id", "id"],
        postgresql_where=sa.text("kind IN ('study.importance', 'study.few_clips')"),
    )


def downgrade() -> None:
    op.drop_index("event_notice_idx", table_name="event")
