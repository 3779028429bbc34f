"""Find the first trials that wait in a study without reading all that wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_WAITING = sa.text("state IN ('suggested', 'paused')")
_FIRST = sa.text("priority DESC")


def upgrade() -> None:
    op.create_index("trial_waiting_idx", "trial", ["study_id", "held", _FIRST, "id"], postgresql_where=_WAITING)
    op.drop_index("trial_claimable_idx", table_name="trial", postgresql_where=_WAITING)


def downgrade() -> None:
    op.create_index("trial_claimable_idx", "trial", [_FIRST, "id"], postgresql_where=_WAITING)
    op.drop_index("trial_waiting_idx", table_name="trial", postgresql_where=_WAITING)
