"""Logging a browser in, and the first token of a machine."""

from __future__ import annotations

import os
import re
import stat
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from api.auth import bootstrap_admin_token, create_login_link, load_secret
from api.rate import RateLimiter
from hpo.errors import SetupError
from hpo.store import Database, tokens

from .service import KEY, Service


def _browser(service: Service) -> httpx.Client:
    return httpx.Client(base_url=service.url, timeout=30)


def test_a_link_logs_in_once(service: Service) -> None:
    link = create_login_link(service.database, KEY, service.url)
    assert link.startswith(service.url + "/login?code=hpo_")
    with _browser(service) as browser:
        answer = browser.get(link)
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
        cookie = SimpleCookie(answer.headers["set-cookie"])["hpo_session"]
        assert (cookie["httponly"], cookie["samesite"].lower(), cookie["path"]) == (True, "strict", "/")
        assert browser.get("/api/studies").json() == {"study_summaries": []}
        assert browser.get("/v1/studies").json() == [], "a session reads the API too"
    with _browser(service) as other:
        again = other.get(link)
        assert again.status_code == 401
        assert "used already" in again.text
        assert "set-cookie" not in again.headers


def test_a_session_may_only_read(service: Service) -> None:
    with _browser(service) as browser:
        browser.get(create_login_link(service.database, KEY, service.url))
        assert browser.post("/v1/studies", json={}).status_code == 401
        assert browser.delete("/v1/studies/demo").status_code == 401
        assert browser.get("/v1/tokens").status_code == 403


def test_a_link_made_over_http_works(service: Service) -> None:
    with service.http() as http:
        made = http.post("/v1/login-links")
        assert made.status_code == 201
    with _browser(service) as browser:
        assert browser.get(made.json()["path"]).status_code == 303


def test_the_form_takes_a_token(service: Service) -> None:
    with _browser(service) as browser:
        page = browser.get("/dashboard")
        assert page.status_code == 401
        assert '<form method="post" action="/login">' in page.text
        assert "<script" not in page.text
        wrong = browser.post("/login", data={"token": "<b>wrong</b>"})
        assert wrong.status_code == 401
        assert "not known" in wrong.text
        assert "<b>" not in wrong.text
        right = browser.post("/login", data={"token": f" {service.tokens['read']}\n"})
        assert (right.status_code, right.headers["location"]) == (303, "/dashboard")
        assert browser.get("/dashboard").status_code == 200
        assert browser.post("/logout").headers["location"] == "/login"
        assert browser.get("/dashboard").status_code == 401


def test_a_session_ends_for_good_at_logout_and_at_its_expiry(service: Service) -> None:
    with _browser(service) as browser:
        browser.post("/login", data={"token": service.tokens["read"]})
        kept = browser.cookies["hpo_session"]
        browser.post("/logout")
        browser.cookies.set("hpo_session", kept)
        assert browser.get("/api/studies").status_code == 401
    with _browser(service) as browser:
        browser.post("/login", data={"token": service.tokens["read"]})
        with service.database.transaction() as connection:
            connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() WHERE kind = 'session'"))
        assert browser.get("/api/studies").status_code == 401


def test_guessing_is_slowed_down(service: Service) -> None:
    with _browser(service) as browser:
        answers = [browser.post("/login", data={"token": "x"}) for _ in range(21)]
    assert {answer.status_code for answer in answers[:20]} == {401}
    assert answers[20].status_code == 429
    assert 1 <= int(answers[20].headers["retry-after"]) <= 61


def test_an_oversized_login_form_is_refused(service: Service) -> None:
    with _browser(service) as browser:
        assert browser.post("/login", content=b"token=" + b"a" * 10_000).status_code == 401


def test_the_rate_limit_counts_each_client_over_a_sliding_window() -> None:
    now = 0.0
    limiter = RateLimiter(attempts=2, seconds=60, clock=lambda: now)
    assert [limiter.wait_seconds("a") for _ in range(2)] == [0, 0]
    now = 10.0
    assert limiter.wait_seconds("a") == 50
    assert limiter.wait_seconds("b") == 0
    now = 60.0
    assert limiter.wait_seconds("a") == 0


# ---------------------------------------------------------------- the first start


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_token_and_the_next_ones_keep_it(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = bootstrap_admin_token(database, KEY, file)
    assert re.fullmatch(r"hpo_[\w-]{49}", made)
    assert file.read_text() == made + "\n"
    assert _mode(file) == 0o600
    file.chmod(0o644)
    assert bootstrap_admin_token(database, KEY, file) == made
    assert _mode(file) == 0o600
    assert os.listdir(tmp_path) == ["token"], "nothing half-written is left"
    with database.transaction() as connection:
        assert tokens.verify(connection, made, KEY).allows("admin")


@pytest.mark.parametrize("left", ["", "garbage \x00", "hpo_" + "a" * 49])
def test_a_token_that_is_not_known_any_more_is_replaced(database: Database, tmp_path: Path, left: str) -> None:
    file = tmp_path / "token"
    file.write_text(left)
    made = bootstrap_admin_token(database, KEY, file)
    assert file.read_text() == made + "\n"


def test_a_token_without_the_admin_scope_is_not_kept(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with database.transaction() as connection:
        file.write_text(tokens.create(connection, name="reader", scopes=["read"], key=KEY))
    kept = file.read_text()
    assert bootstrap_admin_token(database, KEY, file) != kept


def test_a_folder_that_is_not_there_is_a_sentence(database: Database, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read or written"):
        bootstrap_admin_token(database, KEY, tmp_path / "nowhere" / "token")


def test_the_key_is_made_once_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_SECRET", raising=False)
    key = load_secret(tmp_path)
    assert len(key) >= 32
    assert load_secret(tmp_path) == key
    assert _mode(tmp_path / "secret") == 0o600
    assert os.listdir(tmp_path) == ["secret"]


def test_the_key_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_SECRET", "a key that all replicas share")
    assert load_secret(tmp_path) == b"a key that all replicas share"
    assert not (tmp_path / "secret").exists()
    monkeypatch.setenv("HPO_SECRET", "short")
    with pytest.raises(SetupError, match="HPO_SECRET is too short"):
        load_secret(tmp_path)


def test_the_login_link_has_the_address_given(database: Database) -> None:
    link = urlsplit(create_login_link(database, KEY, "http://[::1]:8000/"))
    assert (link.netloc, link.path) == ("[::1]:8000", "/login")
