"""Keep when a token was last used, and to which token a login code or a session belongs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_token", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_token", sa.Column("parent_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("api_token_parent_id_fkey"), "api_token", "api_token", ["parent_id"], ["id"], ondelete="CASCADE"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("api_token_parent_id_fkey"), "api_token", type_="foreignkey")
    op.drop_column("api_token", "parent_id")
    op.drop_column("api_token", "last_used_at")
