"""A real Postgres for tests: an embedded one of its own, or the server that `HPO_TEST_DATABASE_URL` names.

Tests get databases that were made for them, under unique names, and that are dropped afterwards. `DATABASE_URL`, which
may hold somebody's data, is never read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from hpo.store import Database, EmbeddedPostgres, migrate
from hpo.store.database import make_engine

# Nothing in a test's database is worth surviving a power failure.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


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


@pytest.fixture
def database_url(postgres_admin: Engine, migrated_template: str) -> Iterator[str]:
    """The address of a fresh, migrated database."""
    with fresh_database(postgres_admin, template=migrated_template) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database."""
    opened = Database(database_url)
    yield opened
    opened.close()
