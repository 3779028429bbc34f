"""A real Postgres for tests: an embedded one of its own, or the server that `HPO_TEST_DATABASE_URL` names.

Tests get databases that were made for tests, under unique names, and that are dropped in the end. `DATABASE_URL`, which
may hold somebody's data, is never read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from hpo.store import Database, EmbeddedPostgres, migrate
from hpo.store.database import make_engine
from hpo.store.tables import metadata

# Nothing in a test's database is worth surviving a power failure.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}

_END_OTHERS: Final = text("""
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
""")
_FIRST_IDS: Final = text("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'")
# All that a test could change except rows. Temporary tables go with the sessions that made them.
_SHAPE: Final = text("""
SELECT (SELECT string_agg(nspname, ',' ORDER BY nspname) FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast_temp)_'),
       (SELECT count(*) FROM pg_class WHERE relpersistence <> 't'),
       (SELECT count(*) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relpersistence <> 't'),
       (SELECT count(*) FROM pg_constraint),
       (SELECT count(*) FROM pg_trigger),
       (SELECT count(*) FROM pg_proc),
       (SELECT count(*) FROM pg_db_role_setting),
       (SELECT string_agg(version_num, ',') FROM alembic_version)
""")


@contextmanager
def temporary_server() -> Iterator[str]:
    """Run an embedded server in a folder of its own and give its address."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-test-"))
    try:
        with EmbeddedPostgres(folder, options=FAST) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server on which tests may create databases."""
    given = os.environ.get("HPO_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with temporary_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: str) -> Iterator[Engine]:
    """Connections that create and drop databases."""
    engine = make_engine(postgres_server, pool_size=2).execution_options(isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@contextmanager
def fresh_database(admin: Engine, *, template: str | None = None) -> Iterator[str]:
    """Create a database (a copy of `template`), give its address, and drop it afterwards."""
    name = f"hpo_test_{uuid4().hex}"
    source = f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"{source}'))
    try:
        yield admin.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def migrated_template(postgres_admin: Engine) -> Iterator[str]:
    """The name of a migrated, empty database that nothing connects to."""
    with fresh_database(postgres_admin) as url:
        migrate(url)
        yield str(make_url(url).database)


@pytest.fixture
def empty_database_url(postgres_admin: Engine) -> Iterator[str]:
    """The address of a fresh database without any table."""
    with fresh_database(postgres_admin) as url:
        yield url


def empty(connection: Connection) -> None:
    """Delete the rows of all tables. Ids go on, so that what a server remembers of one is never said of another."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(table.delete())


@dataclass(slots=True)
class HandedOn:
    """A migrated database that tests have one after the other: to empty it takes a hundredth of the time to make it."""

    url: str
    _engine: Engine = field(init=False)
    _shape: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._engine = make_engine(self.url, pool_size=1)
        with self._engine.connect() as connection:
            self._shape = tuple(connection.execute(_SHAPE).one())

    def clean_up(self) -> bool:
        """End what still uses it and empty it; return False if more than rows has changed, or it cannot be reached."""
        try:
            with self._engine.begin() as connection:
                connection.execute(_END_OTHERS)
                if tuple(connection.execute(_SHAPE).one()) != self._shape:
                    return False
                empty(connection)
                connection.execute(_FIRST_IDS)
        except OperationalError:
            return False
        return True

    def close(self) -> None:
        """Close its connection."""
        self._engine.dispose()


@dataclass(slots=True)
class Supply:
    """Hands a database from test to test, and makes another one after a test that changed more than rows."""

    admin: Engine
    template: str
    _stack: ExitStack = field(default_factory=ExitStack)
    _current: HandedOn | None = None

    @contextmanager
    def database_url(self) -> Iterator[str]:
        """Yield the address of an empty, migrated database that nobody else uses meanwhile."""
        if self._current is None:
            self._current = HandedOn(self._stack.enter_context(fresh_database(self.admin, template=self.template)))
            self._stack.callback(self._current.close)
        yield self._current.url
        if not self._current.clean_up():
            self.close()

    def close(self) -> None:
        """Drop the database."""
        self._current = None
        self._stack.close()


@pytest.fixture(scope="session")
def database_supply(postgres_admin: Engine, migrated_template: str) -> Iterator[Supply]:
    """Where the databases of tests come from."""
    supply = Supply(postgres_admin, migrated_template)
    yield supply
    supply.close()


@pytest.fixture
def database_url(database_supply: Supply) -> Iterator[str]:
    """The address of an empty, migrated database."""
    with database_supply.database_url() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty, migrated database."""
    opened = Database(database_url)
    yield opened
    opened.close()
