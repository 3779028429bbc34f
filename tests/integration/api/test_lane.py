"""Calls of workers and pages side by side: each side goes on while the other has all it may have of the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import QueuePool, text

import api.app
from api.lane import PLACES, Lane
from api.state import ApiState
from hpo.store import Database

from .service import Service, claim_body, fence, finished, measured, serving

SECONDS = 30.0
_LOCKED = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")


@pytest.fixture
def held(database: Database) -> Iterator[Database]:
    """Another way to the store, over which a test holds locks."""
    beside = database.beside(pool_size=2, max_overflow=0)
    yield beside
    beside.close()


def _with_lane(monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    monkeypatch.setattr(api.app, "Lane", partial(Lane, **how))


def _leases(service: Service, count: int) -> list[dict[str, Any]]:
    service.suggest(service.create(), count)
    with service.http("worker") as http:
        return [http.post("/v1/leases", json=claim_body(f"w{place}")).json() for place in range(count)]


def _report(service: Service, lease: dict[str, Any]) -> httpx.Response:
    with service.http("worker") as http:
        return http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.5))


def _until_locked(watching: Database, count: int) -> None:
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.02)):
        with watching.transaction() as connection:
            if connection.execute(_LOCKED).scalar_one() == count:
                return
        pause.wait(0.02)
    raise AssertionError(f"{count} calls did not come to wait for locks within {SECONDS:g} s")


def _in_use(service: Service) -> int:
    """Return how many connections of the lane are in use."""
    state: ApiState = service.application.state.hpo
    pool = state.lane._database._engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


def test_a_full_lane_refuses_calls_of_workers_and_no_page_waits(
    database: Database, held: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_lane(monkeypatch, wait_seconds=0.05, slow_seconds=3600.0)
    with serving(database) as service, ThreadPoolExecutor(PLACES) as pool, service.http() as http:
        *leases, late = _leases(service, PLACES + 1)
        with held.transaction() as connection:
            connection.execute(text("SELECT FROM trial FOR UPDATE"))
            blocked = [pool.submit(_report, service, lease) for lease in leases]
            _until_locked(held, PLACES)
            assert [study["name"] for study in http.get("/v1/studies").json()] == ["demo"]
            for path, body in (
                ("/v1/leases", claim_body("another")),
                (f"/v1/trials/{late['trial_id']}/reports", fence(late)),
                (f"/v1/trials/{late['trial_id']}/finish", finished(late, 0.5)),
                (f"/v1/trials/{late['trial_id']}/release", {**fence(late), "reason": "drained"}),
            ):
                answer = http.post(path, json=body)
                assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store-unavailable"), path
                assert int(answer.headers["retry-after"]) > 0
        assert [answer.result(SECONDS).status_code for answer in blocked] == [200] * PLACES
        assert _report(service, late).json() == {"decision": "continue"}, "nothing of it was done before"
        assert _in_use(service) == 0


def test_calls_of_workers_go_on_while_pages_have_all_their_connections(database_url: str) -> None:
    pages = Database(database_url, pool_size=1, max_overflow=0)
    try:
        with serving(pages) as service, service.http("worker") as http:
            service.suggest(service.create())
            with pages.transaction():  # the one connection; the token of the worker is not known yet
                lease = http.post("/v1/leases", json=claim_body()).json()
                path = f"/v1/trials/{lease['trial_id']}"
                assert http.post(f"{path}/reports", json=measured(lease, 1, 0.5)).json() == {"decision": "continue"}
                assert http.post(f"{path}/reports", json=fence(lease)).status_code == 200
                assert http.post(f"{path}/finish", json=finished(lease, 0.5)).json()["state"] == "completed"
    finally:
        pages.close()


def test_trials_that_are_locked_for_long_keep_no_worker_of_others_waiting(
    database: Database, held: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while the marks of a large study are written."""
    _with_lane(monkeypatch, slow_seconds=0.0)
    with serving(database) as service, ThreadPoolExecutor(PLACES + 1) as pool:
        *leases, other = _leases(service, PLACES + 2)
        with held.transaction() as connection:
            ids = [lease["trial_id"] for lease in leases]
            connection.execute(text("SELECT FROM trial WHERE id = ANY(:ids) FOR UPDATE"), {"ids": ids})
            blocked = [pool.submit(_report, service, lease) for lease in leases]
            _until_locked(held, PLACES + 1)
            assert _report(service, other).json() == {"decision": "continue"}
        assert [answer.result(SECONDS).status_code for answer in blocked] == [200] * (PLACES + 1)
        assert _in_use(service) == 0


def test_calls_that_fail_keep_no_place_and_no_connection(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_lane(monkeypatch, wait_seconds=0.5, slow_seconds=3600.0)
    with serving(database) as service, service.http("worker") as http:
        (lease,) = _leases(service, 1)
        path = f"/v1/trials/{lease['trial_id']}"
        wrong = {**measured(lease, 1, 0.5), "attempt": 7}
        stranger = {"Authorization": "Bearer of nobody"}
        for _ in range(PLACES):
            assert http.post(f"{path}/reports", json=wrong).status_code == 409
            assert http.post("/v1/trials/999999/finish", json=finished(lease, 0.5)).status_code == 404
            assert http.post(f"{path}/reports", json=measured(lease, 99, 0.5)).status_code == 422
            assert http.post(f"{path}/reports", json=fence(lease), headers=stranger).status_code == 401
            with monkeypatch.context() as patched:
                patched.setattr("api.v1.leases.decide", _fail)
                assert http.post(f"{path}/reports", json=fence(lease)).status_code == 500
        assert _in_use(service) == 0
        assert http.post(f"{path}/finish", json=finished(lease, 0.5)).json()["state"] == "completed"


def _fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError
