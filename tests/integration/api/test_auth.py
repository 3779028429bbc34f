"""Who may do what: every route, every scope. A route that is not in the table fails the test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.routing import BaseRoute, Route

from api.app import create_app
from api.dashboard.mount import PREFIXES, DashboardRoute
from hpo.store import Database, tokens

from .service import KEY, Service, claim_body, spec

OPEN: Final = "open"
NEEDS: Final[dict[tuple[str, str], str]] = {
    ("GET", "/v1/health"): OPEN,
    ("GET", "/v1/studies"): "read",
    ("POST", "/v1/studies"): "admin",
    ("GET", "/v1/studies/{name}"): "read",
    ("DELETE", "/v1/studies/{name}"): "admin",
    ("POST", "/v1/studies/{name}/pause"): "admin",
    ("POST", "/v1/studies/{name}/resume"): "admin",
    ("POST", "/v1/studies/{name}/stop"): "admin",
    ("GET", "/v1/studies/{name}/trials"): "read",
    ("POST", "/v1/studies/{name}/trials"): "admin",
    ("GET", "/v1/studies/{name}/trials/{number}"): "read",
    ("POST", "/v1/studies/{name}/trials/{number}/cancel"): "admin",
    ("GET", "/v1/studies/{name}/best"): "read",
    ("GET", "/v1/studies/{name}/export"): "read",
    ("GET", "/v1/studies/{name}/curves"): "read",
    ("GET", "/v1/studies/{name}/events"): "read",
    ("GET", "/v1/studies/{name}/events/stream"): "read",
    ("GET", "/v1/trials/{trial_id}"): "read",
    ("POST", "/v1/leases"): "worker",
    ("POST", "/v1/trials/{trial_id}/reports"): "worker",
    ("POST", "/v1/trials/{trial_id}/finish"): "worker",
    ("POST", "/v1/trials/{trial_id}/release"): "worker",
    ("GET", "/v1/workers"): "read",
    ("GET", "/v1/tokens"): "admin",
    ("POST", "/v1/tokens"): "admin",
    ("DELETE", "/v1/tokens/{token_id}"): "admin",
    ("POST", "/v1/login-links"): "admin",
    ("GET", "/"): OPEN,
    ("GET", "/login"): OPEN,
    ("POST", "/login"): OPEN,
    ("POST", "/logout"): OPEN,
    ("GET", "/problems/{slug}"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/oauth2-redirect"): OPEN,
    ("GET", "/openapi.json"): OPEN,
}
IMPLIED: Final = {"read": {"read"}, "worker": {"read", "worker"}, "admin": {"read", "worker", "admin"}}
CLOSED: Final = sorted(place for place, scope in NEEDS.items() if scope != OPEN)


def _routes(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        nested = getattr(route, "original_router", None)
        if isinstance(route, DashboardRoute):
            continue
        if nested is not None:
            yield from _routes(nested.routes)
        else:
            assert isinstance(route, APIRoute | Route), f"{route!r} is not covered by this test"
            yield from ((method, route.path) for method in route.methods or () if method != "HEAD")


def _path(template: str) -> str:
    return re.sub(r"{(\w+)}", lambda found: "nothing" if found[1] in ("name", "slug") else "987654321", template)


def test_every_route_is_in_the_table(database: Database, service: Service) -> None:
    application: FastAPI = create_app(database, service.config)
    assert set(_routes(application.router.routes)) == set(NEEDS)


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_a_request_without_a_token_is_refused(empty_service: Service, method: str, path: str) -> None:
    # A body that could not even be read: a stranger must not learn how bodies are judged.
    with empty_service.http(None) as http:
        answer = http.request(method, _path(path), content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 401
    assert answer.json()["type"] == "/problems/authentication"
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_each_scope_opens_what_it_should_and_no_more(empty_service: Service, method: str, path: str) -> None:
    for held, reach in IMPLIED.items():
        if (method, path) == ("POST", "/v1/login-links") and held == "admin":
            continue
        with empty_service.http(held) as http:
            # A body that no route accepts, so that nothing is stored.
            answer = http.request(method, _path(path), json=[] if method != "GET" else None)
        if NEEDS[method, path] in reach:
            assert answer.status_code in (200, 404, 422), (held, answer.text)
        else:
            assert answer.status_code == 403, (held, answer.text)
            assert answer.json()["type"] == "/problems/permission-denied"
            assert "insufficient_scope" in answer.headers["www-authenticate"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_dashboard_is_closed(empty_service: Service, prefix: str) -> None:
    with empty_service.http(None) as http:
        for path in (prefix, f"{prefix}/x"):
            assert http.get(path).status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer\tx", "Basic YTpi", "Bearer x", "Bearer hpo_" + "a" * 49, "Bearer \xe9", "bearer  a b c"],
)
def test_a_header_without_a_valid_token_is_refused(empty_service: Service, header: str) -> None:
    with empty_service.http(None) as http:
        answer = http.get("/v1/studies", headers={b"authorization": header.encode("latin-1")})
    assert answer.status_code == 401


def test_revoked_and_expired_tokens_are_refused_at_once(service: Service) -> None:
    with service.http() as http:
        made = http.post("/v1/tokens", json={"name": "gpu-1", "scopes": ["worker"], "expires_in_hours": 1}).json()
        mine = {"authorization": f"Bearer {made['token']}"}
        assert http.post("/v1/leases", json=claim_body(), headers=mine).status_code == 204
        listed = next(token for token in http.get("/v1/tokens").json() if token["name"] == "gpu-1")
        assert listed["scopes"] == ["worker"]
        assert made["token"] not in http.get("/v1/tokens").text
        assert http.delete(f"/v1/tokens/{listed['id']}").json()["revoked_at"] is not None
        assert http.post("/v1/leases", json=claim_body(), headers=mine).status_code == 401
    with service.database.transaction() as connection:
        late = tokens.create(connection, name="late", scopes=["read"], key=KEY, expires=timedelta(hours=1))
        connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() WHERE name = 'late'"))
    with service.http(None) as http:
        assert http.get("/v1/studies", headers={"authorization": f"Bearer {late}"}).status_code == 401


def test_a_login_code_and_a_session_are_refused_as_bearer_tokens(service: Service) -> None:
    with service.database.transaction() as connection:
        made = [
            tokens.create(connection, name="x", scopes=["admin"], key=KEY, kind=kind, expires=timedelta(hours=1))
            for kind in ("login", "session")
        ]
    with service.http(None) as http:
        for token in made:
            assert http.get("/v1/studies", headers={"authorization": f"Bearer {token}"}).status_code == 401


def test_a_refused_request_changes_nothing(service: Service) -> None:
    for scope in (None, "read", "worker"):
        with service.http(scope) as http:
            assert http.post("/v1/studies", json=spec()).status_code in (401, 403)
    with service.http() as http:
        assert http.get("/v1/studies").json() == []


def test_tokens_of_another_key_are_unknown(service: Service) -> None:
    with service.database.transaction() as connection:
        foreign = tokens.create(connection, name="x", scopes=["admin"], key=b"another key of 16 bytes")
    with service.http(None) as http:
        assert http.get("/v1/studies", headers={"authorization": f"Bearer {foreign}"}).status_code == 401


def test_answers_carry_the_headers_that_keep_browsers_careful(empty_service: Service) -> None:
    with empty_service.http() as http:
        for path in ("/v1/studies", "/v1/nothing", "/dashboard", "/login"):
            headers = http.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"


def test_a_huge_body_is_cut_off(empty_service: Service) -> None:
    with empty_service.http("worker") as http:
        try:
            answer = http.post("/v1/leases", content=(b" " * 2**20 for _ in range(9)))
        except httpx.WriteError:
            return  # the server hung up, which is as good
    assert answer.status_code == 413
