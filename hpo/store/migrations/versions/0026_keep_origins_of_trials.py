"""Keep where the results of trials from elsewhere come from; let a person take ended trials out of a study."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trial", sa.Column("origin", postgresql.JSONB()))
    for name in ("unclaimed_check", "withdrawn_check"):
        op.drop_constraint(op.f(f"trial_{name}"), "trial")
    op.create_check_constraint(
        op.f("trial_unclaimed_check"),
        "trial",
        "attempt > 0 OR (lease_id IS NULL AND (origin IS NOT NULL OR state IN ('suggested', 'withdrawn')))",
    )
    op.create_check_constraint(
        op.f("trial_origin_check"),
        "trial",
        "origin IS NULL OR (attempt = 0 AND finished_at IS NOT NULL AND replicate_of IS NULL"
        " AND jsonb_typeof(origin -> 'key') = 'string')",
    )
    op.create_index(
        "trial_origin_idx",
        "trial",
        ["study_id", sa.literal_column("(origin ->> 'key')")],
        unique=True,
        postgresql_where=sa.text("origin IS NOT NULL AND state <> 'withdrawn'"),
    )


def downgrade() -> None:
    # Earlier releases know neither kind of trial. Trials that a person took out have ended in some way before; of
    # those with a number that nobody claimed, nothing refers to a claim.
    op.execute(sa.text("UPDATE trial SET state = 'stopped' WHERE state = 'withdrawn' AND attempt > 0"))
    op.execute(sa.text("DELETE FROM measurement USING trial WHERE trial.id = trial_id AND origin IS NOT NULL"))
    op.execute(
        sa.text(
            "UPDATE trial SET state = 'withdrawn', metrics = NULL, failure_kind = NULL, epochs_done = 0"
            " WHERE origin IS NOT NULL"
        )
    )
    op.drop_index("trial_origin_idx", "trial")
    for name in ("origin_check", "unclaimed_check"):
        op.drop_constraint(op.f(f"trial_{name}"), "trial")
    op.drop_column("trial", "origin")
    op.create_check_constraint(
        op.f("trial_unclaimed_check"),
        "trial",
        "attempt > 0 OR (lease_id IS NULL AND state IN ('suggested', 'withdrawn'))",
    )
    op.create_check_constraint(op.f("trial_withdrawn_check"), "trial", "attempt = 0 OR state <> 'withdrawn'")
