"""Alembic's entry point: runs the revisions on the connection that `hpo.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from hpo.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, compare_server_default=True
)
with context.begin_transaction():
    context.run_migrations()
