"""Servers for the tests: one that finds an empty store before each test, and others for tests that store nothing."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from hpo.store import Database

from .history import make_history
from .service import Service, serving, serving_alone


@pytest.fixture(scope="package")
def shared_server(postgres_admin: Engine, migrated_template: str) -> Iterator[Service]:
    """The server of `service`: to start and to end one takes longer than most tests."""
    with serving_alone(postgres_admin, migrated_template) as running:
        yield running


@pytest.fixture
def service(shared_server: Service) -> Service:
    """A running server over an empty store. What it counts since its start, earlier tests have counted too."""
    return shared_server.emptied()


@pytest.fixture
def new_service(database: Database) -> Iterator[Service]:
    """A server that has just been started."""
    with serving(database) as running:
        yield running


@pytest.fixture(scope="package")
def empty_service(postgres_admin: Engine, migrated_template: str) -> Iterator[Service]:
    """One server for all tests that leave its store as empty as they found it."""
    with serving_alone(postgres_admin, migrated_template) as running:
        yield running


@pytest.fixture(scope="package")
def past_service(postgres_admin: Engine, migrated_template: str) -> Iterator[Service]:
    """One server with the study of `make_history`, for all tests that only look at it."""
    with serving_alone(postgres_admin, migrated_template) as running:
        make_history(running)
        yield running


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client with the admin token."""
    with service.http() as client:
        yield client
