"""Drop what nothing wrote: the revision of a study's spec and the labels of workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("study_revision_check"), "study", type_="check")
    op.drop_column("study", "revision")
    op.drop_constraint(op.f("worker_labels_check"), "worker", type_="check")
    op.drop_column("worker", "labels")


def downgrade() -> None:
    labels = sa.Column("labels", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False)
    op.add_column("worker", labels)
    op.create_check_constraint(op.f("worker_labels_check"), "worker", "jsonb_typeof(labels) = 'object'")
    op.add_column("study", sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.create_check_constraint(op.f("study_revision_check"), "study", "revision >= 1")
