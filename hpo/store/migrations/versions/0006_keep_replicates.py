"""Keep which trials train a configuration again, and how the finalists of a study are trained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("finalists", postgresql.JSONB(none_as_null=True), nullable=True))
    op.add_column("study", sa.Column("search_ended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("study", sa.Column("race", postgresql.JSONB(none_as_null=True), nullable=True))
    op.create_check_constraint(op.f("study_finalists_check"), "study", "jsonb_typeof(finalists) = 'object'")
    op.create_check_constraint(
        op.f("study_race_check"),
        "study",
        "(race IS NULL) = (search_ended_at IS NULL) AND (race IS NULL OR finalists IS NOT NULL)",
    )
    op.add_column("trial", sa.Column("replicate_of", sa.Integer(), nullable=True))
    op.create_check_constraint(op.f("trial_replicate_check"), "trial", "replicate_of < number")
    op.create_foreign_key(
        op.f("trial_replicate_of_fkey"),
        "trial",
        "trial",
        ["study_id", "replicate_of"],
        ["study_id", "number"],
    )


def downgrade() -> None:
    # Without the column a replicate is a trial like any other, and counts against the budget.
    op.execute("""
UPDATE study SET live_trials = study.live_trials + again.trials
FROM (SELECT study_id, count(*) AS trials FROM trial
      WHERE replicate_of IS NOT NULL AND state <> 'withdrawn' GROUP BY study_id) AS again
WHERE again.study_id = study.id
""")
    op.drop_constraint(op.f("trial_replicate_of_fkey"), "trial", type_="foreignkey")
    op.drop_constraint(op.f("trial_replicate_check"), "trial", type_="check")
    op.drop_column("trial", "replicate_of")
    op.drop_constraint(op.f("study_race_check"), "study", type_="check")
    op.drop_constraint(op.f("study_finalists_check"), "study", type_="check")
    op.drop_column("study", "race")
    op.drop_column("study", "search_ended_at")
    op.drop_column("study", "finalists")
