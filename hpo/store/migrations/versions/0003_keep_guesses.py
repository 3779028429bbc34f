"""Keep the guesses of people, and how probably a suggestion is feasible."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    guesses = sa.Column("guesses", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False)
    op.add_column("study", guesses)
    op.create_check_constraint(op.f("study_guesses_check"), "study", "jsonb_typeof(guesses) = 'array'")
    op.add_column("trial", sa.Column("predicted_feasibility", sa.Double(), nullable=True))
    op.create_check_constraint(
        op.f("trial_predicted_feasibility_check"), "trial", "predicted_feasibility BETWEEN 0 AND 1"
    )
    # Between what was begun and what is new there is room for what a person asked for.
    op.execute("UPDATE trial SET priority = 2 WHERE priority = 1")


def downgrade() -> None:
    op.execute("UPDATE trial SET priority = priority / 2")
    op.drop_constraint(op.f("trial_predicted_feasibility_check"), "trial", type_="check")
    op.drop_column("trial", "predicted_feasibility")
    op.drop_constraint(op.f("study_guesses_check"), "study", type_="check")
    op.drop_column("study", "guesses")
