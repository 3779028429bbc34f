"""Keep when each attempt of a trial began and ended and who ran it; let a study end as failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# An attempt lasted from its claim to the last that its worker said before the next claim. Nobody has said how the
# attempts before the last one of a trial ended.
_FROM_EVENTS = """
INSERT INTO attempt (trial_id, attempt, worker, claimed_at, seen_at, ended_at, ended_as)
SELECT claim.trial_id, claim.attempt, claim.actor, claim.created_at, GREATEST(claim.created_at, said.last_at),
       CASE WHEN NOT is_running THEN GREATEST(claim.created_at, said.last_at) END,
       CASE WHEN is_running THEN NULL
            WHEN claim.attempt < trial.attempt THEN 'unknown'
            WHEN trial.state IN ('completed', 'stopped', 'failed') THEN trial.state
            ELSE 'unknown' END
FROM (
    SELECT DISTINCT ON (trial_id, (detail ->> 'attempt')::int)
           id, trial_id, (detail ->> 'attempt')::int AS attempt, actor, created_at
    FROM event
    WHERE kind = 'trial.claimed' AND trial_id IS NOT NULL AND (detail ->> 'attempt')::int >= 1
    ORDER BY trial_id, (detail ->> 'attempt')::int, id
) AS claim
JOIN trial ON trial.id = claim.trial_id AND claim.attempt <= trial.attempt
CROSS JOIN LATERAL (SELECT trial.state = 'running' AND claim.attempt = trial.attempt AS is_running) AS now
LEFT JOIN LATERAL (
    SELECT max(event.created_at) AS last_at
    FROM event
    WHERE event.trial_id = claim.trial_id AND event.actor = claim.actor
      AND (event.detail ->> 'attempt')::int = claim.attempt
) AS said ON true
"""
_RUNNING_WITHOUT_EVENTS = """
INSERT INTO attempt (trial_id, attempt, worker, claimed_at, seen_at)
SELECT id, attempt, lease_worker, started_at, started_at FROM trial
WHERE state = 'running'
ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "attempt",
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("claimed_at", time, nullable=False),
        sa.Column("seen_at", time, nullable=False),
        sa.Column("ended_at", time),
        sa.Column("ended_as", sa.Text()),
        sa.CheckConstraint("attempt >= 1", name=op.f("attempt_attempt_check")),
        sa.CheckConstraint("claimed_at <= seen_at AND seen_at <= ended_at", name=op.f("attempt_order_check")),
        sa.CheckConstraint("(ended_at IS NULL) = (ended_as IS NULL)", name=op.f("attempt_ended_check")),
        sa.CheckConstraint(
            "ended_as IN ('completed', 'crashed', 'drained', 'expired', 'failed', 'paused', 'stopped', 'unknown')",
            name=op.f("attempt_ended_as_check"),
        ),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("attempt_trial_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "attempt", name=op.f("attempt_pkey")),
    )
    op.execute(_FROM_EVENTS)
    op.execute(_RUNNING_WITHOUT_EVENTS)
    op.add_column("study", sa.Column("too_many_failed", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_constraint(op.f("study_state_check"), "study", type_="check")
    op.drop_constraint(op.f("study_finished_check"), "study", type_="check")
    op.create_check_constraint(
        op.f("study_state_check"), "study", "state IN ('active', 'completed', 'failed', 'paused', 'stopped')"
    )
    op.create_check_constraint(
        op.f("study_finished_check"),
        "study",
        "state = 'stopped' OR (state IN ('completed', 'failed')) = (finished_at IS NOT NULL)",
    )


def downgrade() -> None:
    op.execute("UPDATE study SET state = 'completed' WHERE state = 'failed'")
    op.drop_constraint(op.f("study_finished_check"), "study", type_="check")
    op.drop_constraint(op.f("study_state_check"), "study", type_="check")
    op.create_check_constraint(
        op.f("study_state_check"), "study", "state IN ('active', 'completed', 'paused', 'stopped')"
    )
    op.create_check_constraint(
        op.f("study_finished_check"), "study", "state = 'stopped' OR (state = 'completed') = (finished_at IS NOT NULL)"
    )
    op.drop_column("study", "too_many_failed")
    op.drop_table("attempt")
