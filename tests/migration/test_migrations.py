"""The migrations make exactly the tables of `hpo.store.tables`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from hpo.errors import SetupError, StoreUnavailableError
from hpo.store import Database, migrate
from hpo.store.database import make_engine
from hpo.store.migrate import migration_config
from hpo.store.tables import metadata

CATALOGUE = """
SELECT 'column', table_name || '.' || column_name,
       concat_ws(' ', data_type, udt_name, is_nullable, column_default, is_identity, identity_generation)
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1, 2, 3
"""


def catalogue(connection: Connection) -> list[tuple[str, ...]]:
    return [tuple(row) for row in connection.execute(text(CATALOGUE))]


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8':sqlalchemy.exc.SAWarning")
def test_migrating_an_empty_database_makes_the_tables_of_the_models(empty_database_url: str, database_url: str) -> None:
    made, migrated = make_engine(empty_database_url), make_engine(database_url)
    with made.begin() as connection:
        metadata.create_all(connection)
        expected = catalogue(connection)
    with migrated.begin() as connection:
        # Down to CHECK constraints, which Alembic does not compare.
        assert catalogue(connection) == expected
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert len(expected) > 100
    made.dispose()
    migrated.dispose()


def test_downgrading_leaves_nothing_and_upgrading_again_works(database_url: str) -> None:
    engine = make_engine(database_url)
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert catalogue(connection) == []
    migrate(database_url)
    with engine.begin() as connection:
        assert catalogue(connection) != []
    engine.dispose()


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(migration_config()).get_heads()) == 1


def test_concurrent_migrations_run_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [empty_database_url] * 4))
    database = Database(empty_database_url)
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    database.close()


def test_a_database_of_a_newer_version_is_refused_in_one_sentence(database_url: str) -> None:
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SetupError, match="newer video-hpo"):
        migrate(database_url)


def test_events_of_another_clusters_future_become_the_past(database_url: str) -> None:
    engine = make_engine(database_url)
    with engine.begin() as connection:
        insert = "INSERT INTO event (transaction_id, kind, actor) VALUES ('999999999999', 'x', 'test')"
        connection.execute(text(insert))
    migrate(database_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT transaction_id::text FROM event")).scalar_one() == "0"
    engine.dispose()


def test_an_unreachable_database_is_unavailable() -> None:
    with pytest.raises(StoreUnavailableError):
        migrate("postgresql://nobody@127.0.0.1:1/nothing")
