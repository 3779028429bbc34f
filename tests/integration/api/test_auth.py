"""Who may do what: every route, every scope. A route that is not in the table fails the test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.routing import BaseRoute, Route

from api.app import create_app
from api.dashboard.mount import PREFIXES, DashboardRoute
from api.pages.paths import is_page
from hpo.store import Database, tokens

from .service import KEY, Service, claim_body, fence, finished, measured, spec

OPEN: Final = "open"
NEEDS: Final[dict[tuple[str, str], str]] = {
    ("GET", "/v1/health"): OPEN,
    ("GET", "/v1/health/live"): OPEN,
    ("GET", "/v1/identity"): OPEN,
    ("GET", "/metrics"): "read",
    ("GET", "/v1/studies"): "read",
    ("POST", "/v1/studies"): "admin",
    ("GET", "/v1/studies/{name}"): "read",
    ("PATCH", "/v1/studies/{name}"): "admin",
    ("DELETE", "/v1/studies/{name}"): "admin",
    ("POST", "/v1/studies/{name}/pause"): "admin",
    ("POST", "/v1/studies/{name}/resume"): "admin",
    ("POST", "/v1/studies/{name}/stop"): "admin",
    ("POST", "/v1/studies/{name}/reopen"): "admin",
    ("POST", "/v1/studies/{name}/finalists"): "admin",
    ("GET", "/v1/studies/{name}/trials"): "read",
    ("POST", "/v1/studies/{name}/trials"): "admin",
    ("GET", "/v1/studies/{name}/trials/{number}"): "read",
    ("DELETE", "/v1/studies/{name}/trials/{number}"): "admin",
    ("POST", "/v1/studies/{name}/import"): "admin",
    ("GET", "/v1/studies/{name}/trials/{number}/log"): "read",
    ("GET", "/v1/studies/{name}/trials/{number}/confusion"): "read",
    ("POST", "/v1/studies/{name}/trials/{number}/cancel"): "admin",
    ("POST", "/v1/studies/{name}/trials/{number}/replicate"): "admin",
    ("GET", "/v1/studies/{name}/best"): "read",
    ("GET", "/v1/studies/{name}/answer"): "read",
    ("GET", "/v1/studies/{name}/export"): "read",
    ("GET", "/v1/studies/{name}/curves"): "read",
    ("GET", "/v1/studies/{name}/events"): "read",
    ("GET", "/v1/studies/{name}/events/stream"): "read",
    ("GET", "/v1/trials/{trial_id}"): "read",
    ("POST", "/v1/leases"): "worker",
    ("POST", "/v1/trials/{trial_id}/reports"): "worker",
    ("POST", "/v1/trials/{trial_id}/finish"): "worker",
    ("POST", "/v1/trials/{trial_id}/release"): "worker",
    ("POST", "/v1/trials/{trial_id}/log"): "worker",
    ("POST", "/v1/checkpoints/plan"): "worker",
    ("POST", "/v1/checkpoints/removals"): "worker",
    ("GET", "/v1/workers"): "read",
    ("POST", "/v1/workers/release"): "admin",
    ("GET", "/v1/openings"): "read",
    ("POST", "/v1/openings"): "admin",
    ("GET", "/v1/tokens"): "admin",
    ("POST", "/v1/tokens"): "admin",
    ("DELETE", "/v1/tokens/{token_id}"): "admin",
    ("POST", "/v1/login-links"): "admin",
    ("GET", "/"): "read",
    ("GET", "/live"): "read",
    ("GET", "/studies/{name}"): "read",
    ("POST", "/studies/{name}/pause"): "admin",
    ("POST", "/studies/{name}/resume"): "admin",
    ("POST", "/studies/{name}/stop"): "admin",
    ("POST", "/studies/{name}/finalists"): "admin",
    ("POST", "/studies/{name}/budget"): "admin",
    ("POST", "/studies/{name}/reopen"): "admin",
    ("POST", "/studies/{name}/note"): "admin",
    ("GET", "/studies/{name}/edit"): "admin",
    ("POST", "/studies/{name}/edit"): "admin",
    ("GET", "/studies/{name}/import"): "admin",
    ("POST", "/studies/{name}/import"): "admin",
    ("GET", "/new"): "admin",
    ("POST", "/new"): "admin",
    ("GET", "/studies/{name}/live"): "read",
    ("GET", "/studies/{name}/trials/{number}"): "read",
    ("POST", "/studies/{name}/trials/{number}/cancel"): "admin",
    ("POST", "/studies/{name}/trials/{number}/replicate"): "admin",
    ("POST", "/studies/{name}/trials/{number}/delete"): "admin",
    ("GET", "/data-sets"): "read",
    ("GET", "/workers"): "read",
    ("POST", "/workers/release"): "admin",
    ("GET", "/assets/{name}"): OPEN,
    ("GET", "/login"): OPEN,
    ("POST", "/login"): OPEN,
    ("POST", "/logout"): OPEN,
    ("GET", "/problems/{slug}"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/openapi.json"): OPEN,
}
STREAMS: Final = frozenset({"/live", "/studies/{name}/live"})
"""Routes that an open page asks for, and that answer for minutes."""
IMPLIED: Final = {"read": {"read"}, "worker": {"read", "worker"}, "admin": {"read", "worker", "admin"}}


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


def test_what_nobody_has_named_is_closed(empty_service: Service) -> None:
    """A route that is added tomorrow needs a token until somebody says otherwise."""
    with empty_service.http(None) as http:
        for path in (
            "/unnamed",
            "/new/page",
            "/v2/studies",
            "/V1/studies",
            "//v1/studies",
            "/workers/x",
            "/login/x",
            "/docs/x",
        ):
            assert (path, http.get(path).status_code) == (path, 401)
    with empty_service.http("read") as http:
        assert http.get("/unnamed").status_code == 404


def test_the_page_on_security_shows_the_same_table() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \| (\w+) \|$", page, re.MULTILINE)
    assert {(method, path): scope for method, path, scope in rows} == NEEDS


REFUSED: Final = ("none", "wrong", "malformed", "revoked", "expired", "login code as a token", "session as a token")
"""What opens nothing."""


@pytest.fixture(scope="module")
def credentials(empty_service: Service) -> dict[str, dict[str, str]]:
    """Headers by the kind of credential; `cookie` belongs to the admin token."""
    hour = timedelta(hours=1)
    with empty_service.database.transaction() as connection:
        owner = tokens.verify(connection, empty_service.tokens["admin"], KEY)
        make = partial(tokens.create, connection, scopes=["admin"], key=KEY)
        made = {
            "wrong": tokens.generate(),
            "malformed": "x",
            "revoked": make(name="revoked"),
            "expired": make(name="expired", expires=hour),
            "login code as a token": make(name="x", kind="login", expires=hour, parent=owner.id),
            "session as a token": make(name="x", kind="session", expires=hour, parent=owner.id),
        }
        session = tokens.create(
            connection, name="x", scopes=["read"], key=KEY, kind="session", expires=hour, parent=owner.id
        )
        tokens.revoke(connection, tokens.verify(connection, made["revoked"], KEY).id)
        connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() WHERE name = 'expired'"))
    bearers = {name: {"Authorization": f"Bearer {token}"} for name, token in (made | empty_service.tokens).items()}
    cookie = f"hpo_session_{urlsplit(empty_service.url).port}={session}"
    return {"none": {}, "cookie": {"Cookie": cookie}, **bearers}


def _reach(kind: str, method: str, path: str) -> set[str]:
    """Return the scopes that a credential opens to requests of a method."""
    if kind == "cookie":  # a browser sends it whoever made it ask, so that of a reader opens nothing that changes
        return {"read"} if method == "GET" or is_page(path) else set()
    return IMPLIED.get(kind, set())


@pytest.mark.parametrize(("method", "path"), sorted(NEEDS))
def test_every_kind_of_credential_opens_what_it_should_and_no_more(
    empty_service: Service, credentials: dict[str, dict[str, str]], method: str, path: str
) -> None:
    assert set(credentials) == {*REFUSED, *IMPLIED, "cookie"}
    statuses = {}
    with empty_service.http(None) as http:
        for kind, headers in credentials.items():
            if (path, kind) == ("/logout", "cookie"):
                continue  # it would end the session
            # A body that no route accepts, so that nothing is stored; and one that could not even be read, since a
            # stranger must not learn how bodies are judged.
            body = None if method == "GET" else "{" if kind in REFUSED else "[]"
            content_type = {} if body is None else {"Content-Type": "application/json"}
            with http.stream(method, _path(path), content=body, headers=headers | content_type) as answer:
                if path not in STREAMS or not answer.is_success:
                    answer.read()
            statuses[kind] = answer.status_code
            if NEEDS[method, path] == OPEN:
                continue
            if kind in REFUSED or not _reach(kind, method, path):
                assert (kind, answer.status_code) == (kind, 401)
                if method == "GET" and is_page(path):
                    assert 'action="/login"' in answer.text, "a person is asked to log in"
                else:
                    assert answer.json()["type"] == "/problems/authentication"
                assert answer.headers["www-authenticate"].startswith("Bearer")
            elif NEEDS[method, path] in _reach(kind, method, path):
                assert answer.status_code in (200, 201, 404, 422), (kind, answer.text)
            else:
                assert (kind, answer.status_code) == (kind, 403)
                assert answer.json()["type"] == "/problems/permission-denied"
                assert "insufficient_scope" in answer.headers["www-authenticate"]
    if NEEDS[method, path] == OPEN:
        assert len(set(statuses.values())) == 1, f"it is open, and the same to everybody: {statuses}"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_dashboard_is_closed(empty_service: Service, credentials: dict[str, dict[str, str]], prefix: str) -> None:
    with empty_service.http(None) as http:
        for kind in REFUSED:
            for path in (prefix, f"{prefix}/x"):
                assert (kind, http.get(path, headers=credentials[kind]).status_code) == (kind, 401)


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


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_token_that_was_known_a_moment_ago_moves_no_trial(service: Service, end: str) -> None:
    service.suggest(service.create(), 3)
    with service.database.transaction() as connection:
        token = tokens.create(connection, name="gpu", scopes=["worker"], key=KEY, expires=timedelta(hours=1))
    with service.http(None) as http:
        http.headers["authorization"] = f"Bearer {token}"
        body = claim_body()
        lease = http.post("/v1/leases", json=body).json()
        path, own = f"/v1/trials/{lease['trial_id']}", fence(lease)
        assert http.post(f"{path}/reports", json=own).status_code == 200
        with service.database.transaction() as connection:
            if end == "revoked":
                tokens.revoke(connection, tokens.verify(connection, token, KEY).id)
            else:
                connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() WHERE name = 'gpu'"))
        before = _events(service)
        calls: list[tuple[str, dict[str, Any]]] = [
            ("/v1/leases", body),
            ("/v1/leases", claim_body()),
            ("/v1/leases", claim_body(study="nothing")),
            (f"{path}/reports", measured(lease, 1, 0.5)),
            (f"{path}/reports", own),
            (f"{path}/finish", finished(lease, 0.5)),
            (f"{path}/finish", {**own, "outcome": "failed", "failure_kind": "oom", "failure_message": "x"}),
            (f"{path}/release", {**own, "reason": "drained"}),
            ("/v1/trials/987654321/reports", own),
        ]
        answers = [http.post(where, json=sent) for where, sent in calls]
    assert [answer.status_code for answer in answers] == [401] * len(calls)
    assert _events(service) == before


def _events(service: Service) -> int:
    with service.database.transaction() as connection:
        return int(connection.execute(text("SELECT count(*) FROM event")).scalar_one())


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
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cache-control"] == "no-store"


def test_a_huge_body_is_cut_off(empty_service: Service) -> None:
    with empty_service.http("worker") as http:
        try:
            answer = http.post("/v1/leases", content=(b" " * 2**20 for _ in range(9)))
        except httpx.WriteError:
            return  # the server hung up, which is as good
    assert answer.status_code == 413
