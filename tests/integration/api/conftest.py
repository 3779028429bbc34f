"""Servers for the tests: one per test over a database per test, and one for all tests that store nothing."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from hpo.store import Database

from .history import make_history
from .service import Service, serving, serving_alone


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    """A running server."""
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
