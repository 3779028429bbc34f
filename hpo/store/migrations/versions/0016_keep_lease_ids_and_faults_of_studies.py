"""Keep the lease id of each attempt, which is good for one claim, and what of the service fails with a study."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_OF_THE_LAST_ATTEMPT = """
UPDATE attempt SET lease_id = trial.lease_id
FROM trial
WHERE trial.id = attempt.trial_id AND trial.attempt = attempt.attempt AND trial.lease_id IS NOT NULL
"""


def upgrade() -> None:
    op.add_column("attempt", sa.Column("lease_id", sa.Uuid()))
    op.execute(_OF_THE_LAST_ATTEMPT)
    op.create_unique_constraint(op.f("attempt_lease_id_key"), "attempt", ["lease_id"])
    op.add_column("study", sa.Column("fault", sa.Text()))


def downgrade() -> None:
    op.drop_column("study", "fault")
    op.drop_column("attempt", "lease_id")
