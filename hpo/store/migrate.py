"""Bring a database to the tables of this version."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from ..errors import SetupError
from .database import make_engine, unavailable

# Any constant will do: it is what two processes that migrate at once agree on.
_LOCK = 7_310_421_946


def migrate(url: str, *, revision: str = "head") -> None:
    """Migrate the database at `url`; does nothing when it is up to date. Two processes may start at once.

    Raises:
        StoreUnavailableError: Postgres cannot be reached.
        SetupError: the database was made by a newer version of video-hpo.
    """
    engine = make_engine(url, pool_size=1)
    try:
        with unavailable(), engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config = migration_config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            # A dump restored into another cluster brings transaction numbers from that cluster's future.
            connection.execute(
                text("UPDATE event SET transaction_id = '0' WHERE transaction_id > pg_current_xact_id()")
            )
    except CommandError as error:
        raise SetupError(
            f"the database cannot be migrated ({error}); a newer video-hpo probably made it, so install that version"
        ) from error
    finally:
        engine.dispose()


def migration_config() -> Config:
    """Return Alembic's configuration; no file is read, so it works from an installed wheel."""
    config = Config()
    config.set_main_option("script_location", "hpo.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def head_revision() -> str:
    """Return the revision of the tables that this version needs."""
    head = ScriptDirectory.from_config(migration_config()).get_current_head()
    assert head is not None, "there are migrations"  # noqa: S101 - a fact of this package
    return head


def known_revisions() -> frozenset[str]:
    """Return every revision of the tables that this version can bring to its own."""
    return frozenset(found.revision for found in ScriptDirectory.from_config(migration_config()).walk_revisions())
