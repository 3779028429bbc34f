"""Give each study a UUID, which its checkpoints carry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("uuid", sa.Uuid(), nullable=False, server_default=sa.text("gen_random_uuid()")))
    op.create_unique_constraint(op.f("study_uuid_key"), "study", ["uuid"])


def downgrade() -> None:
    op.drop_column("study", "uuid")
