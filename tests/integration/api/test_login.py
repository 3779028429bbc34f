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

from api.auth import bootstrap_token, create_login_link, load_secret, take_tokens
from api.rate import RateLimiter
from hpo.errors import SetupError
from hpo.store import Database, tokens

from .service import KEY, Service


def _browser(service: Service) -> httpx.Client:
    return httpx.Client(base_url=service.url, timeout=30)


def _link(service: Service, scope: str = "admin") -> str:
    return create_login_link(service.database, KEY, service.url, token=service.tokens[scope])


def _cookie(service: Service) -> str:
    return f"hpo_session_{urlsplit(service.url).port}"


def _revoke(service: Service, scope: str) -> None:
    with service.database.transaction() as connection:
        tokens.revoke(connection, tokens.verify(connection, service.tokens[scope], KEY).id)


def test_a_link_logs_in_once(service: Service) -> None:
    link = _link(service)
    assert link.startswith(service.url + "/login?code=hpo_")
    with _browser(service) as browser:
        answer = browser.get(link)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = SimpleCookie(answer.headers["set-cookie"])[_cookie(service)]
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
        browser.get(_link(service))
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
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert browser.get("/dashboard").status_code == 200
        assert browser.post("/logout").headers["location"] == "/login"
        assert browser.get("/dashboard").status_code == 401


def test_a_session_ends_for_good_at_logout_and_at_its_expiry(service: Service) -> None:
    with _browser(service) as browser:
        browser.post("/login", data={"token": service.tokens["read"]})
        kept = browser.cookies[_cookie(service)]
        browser.post("/logout")
        browser.cookies.set(_cookie(service), kept)
        assert browser.get("/api/studies").status_code == 401
    with _browser(service) as browser:
        browser.post("/login", data={"token": service.tokens["read"]})
        with service.database.transaction() as connection:
            connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() WHERE kind = 'session'"))
        assert browser.get("/api/studies").status_code == 401


def test_guessing_is_slowed_down(new_service: Service) -> None:
    with _browser(new_service) as browser:
        answers = [browser.post("/login", data={"token": "x"}) for _ in range(21)]
    assert {answer.status_code for answer in answers[:20]} == {401}
    assert answers[20].status_code == 429
    assert 1 <= int(answers[20].headers["retry-after"]) <= 61


def test_wrong_guesses_do_not_keep_a_right_code_or_token_from_working(new_service: Service) -> None:
    with _browser(new_service) as browser:
        for _ in range(21):
            browser.get("/login", params={"code": "x"})
        assert browser.get("/login", params={"code": "x"}).status_code == 429
        assert browser.get(_link(new_service)).status_code == 303
        assert browser.post("/login", data={"token": new_service.tokens["read"]}).status_code == 303


ANOTHER_SITE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},  # of a page that hides its address
    {"Origin": "http://[::1"},  # no address at all
]


@pytest.mark.parametrize("headers", ANOTHER_SITE)
def test_another_site_can_neither_log_a_browser_in_nor_out(service: Service, headers: dict[str, str]) -> None:
    with _browser(service) as browser:
        foreign = browser.post("/login", data={"token": service.tokens["read"]}, headers=headers)
        assert (foreign.status_code, "set-cookie" in foreign.headers) == (403, False)
        assert browser.post("/login", data={"token": service.tokens["read"]}).status_code == 303
        foreign = browser.post("/logout", headers=headers)
        assert (foreign.status_code, "set-cookie" in foreign.headers) == (403, False)
        assert browser.get("/v1/studies").status_code == 200


def test_a_browser_says_whose_form_ours_is(service: Service) -> None:
    """By the standard of `fetch`, the origin of a form is hidden where its page asks for no referrer."""
    with _browser(service) as browser:
        assert browser.get("/login").headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {}])
def test_our_own_form_logs_in(service: Service, headers: dict[str, str]) -> None:
    with _browser(service) as browser:
        own = headers or {"Origin": service.url}
        assert browser.post("/login", data={"token": service.tokens["read"]}, headers=own).status_code == 303


@pytest.mark.parametrize("way", ["form", "link", "link of the API"])
def test_a_session_ends_with_its_token(service: Service, way: str) -> None:
    with service.database.transaction() as connection:
        tokens.create(connection, name="another admin", scopes=["admin"], key=KEY)
    with _browser(service) as browser, service.http() as http:
        if way == "form":
            browser.post("/login", data={"token": service.tokens["admin"]})
        else:
            browser.get(_link(service) if way == "link" else http.post("/v1/login-links").json()["path"])
        left = _link(service)
        assert browser.get("/v1/studies").status_code == 200
        _revoke(service, "admin")
        assert browser.get("/v1/studies").status_code == 401
        assert browser.get("/api/studies").status_code == 401
        assert browser.get(left).status_code == 401, "a code that nobody has used is worth nothing any more"


def test_a_session_ends_when_its_token_expires(service: Service) -> None:
    with _browser(service) as browser:
        browser.post("/login", data={"token": service.tokens["read"]})
        with service.database.transaction() as connection:
            connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() WHERE kind = 'api'"))
        assert browser.get("/v1/studies").status_code == 401


def test_two_services_on_one_machine_keep_a_session_each(service: Service) -> None:
    """A browser sends a host's cookies to all ports, so one name would be written over by the other service."""
    other = urlsplit(service.url).netloc.replace(str(urlsplit(service.url).port), "1")
    with _browser(service) as browser:
        first = browser.post("/login", data={"token": service.tokens["read"]})
        second = browser.post("/login", data={"token": service.tokens["read"]}, headers={"Host": other})
        names = [next(iter(SimpleCookie(answer.headers["set-cookie"]))) for answer in (first, second)]
        assert names == [_cookie(service), "hpo_session_1"]
        assert browser.get("/v1/studies").status_code == 200


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
    made = bootstrap_token(database, KEY, file)
    assert re.fullmatch(r"hpo_[\w-]{49}", made)
    assert file.read_text() == made + "\n"
    assert _mode(file) == 0o600
    file.chmod(0o644)
    assert bootstrap_token(database, KEY, file) == made
    assert _mode(file) == 0o600
    assert os.listdir(tmp_path) == ["token"], "nothing half-written is left"
    with database.transaction() as connection:
        assert tokens.verify(connection, made, KEY).allows("admin")


@pytest.mark.parametrize("left", ["", "garbage \x00", "hpo_" + "a" * 49])
def test_a_token_that_is_not_known_any_more_is_replaced(database: Database, tmp_path: Path, left: str) -> None:
    file = tmp_path / "token"
    file.write_text(left)
    made = bootstrap_token(database, KEY, file)
    assert file.read_text() == made + "\n"


def test_a_token_without_the_admin_scope_is_not_kept(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with database.transaction() as connection:
        file.write_text(tokens.create(connection, name="reader", scopes=["read"], key=KEY))
    kept = file.read_text()
    assert bootstrap_token(database, KEY, file) != kept


def test_a_folder_that_is_not_there_is_a_sentence(database: Database, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read or written"):
        bootstrap_token(database, KEY, tmp_path / "nowhere" / "token")


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


def test_the_key_may_be_in_a_file_that_replicas_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_SECRET", raising=False)
    monkeypatch.setenv("HPO_SECRET_FILE", str(tmp_path / "key"))
    with pytest.raises(SetupError, match="check HPO_SECRET_FILE"):
        load_secret(tmp_path)
    (tmp_path / "key").write_text("a key that all replicas share\n")
    assert load_secret(tmp_path) == b"a key that all replicas share"
    assert os.listdir(tmp_path) == ["key"]


def test_tokens_of_a_folder_are_taken_over_once_with_their_scopes(database: Database, tmp_path: Path) -> None:
    made = {scope: tokens.generate() for scope in ("admin", "worker")}
    for scope, token in made.items():
        (tmp_path / scope).write_text(f"{token}\n")
    assert take_tokens(database, KEY, tmp_path) == take_tokens(database, KEY, tmp_path) == made
    with database.transaction() as connection:
        assert {scope: tokens.verify(connection, token, KEY).scopes for scope, token in made.items()} == {
            "admin": {"admin"},
            "worker": {"worker"},
        }
        given = [row for row in tokens.list_all(connection) if "given" in row.name]
        assert len(given) == len(made)
        tokens.revoke(connection, next(row.id for row in given if row.scopes == {"worker"}))
    with pytest.raises(SetupError, match="was revoked"):
        take_tokens(database, KEY, tmp_path)


@pytest.mark.parametrize("held", ["a password", None])
def test_what_is_no_token_is_not_taken_over(database: Database, tmp_path: Path, held: str | None) -> None:
    if held is not None:
        (tmp_path / "admin").write_text(held)
    with pytest.raises(SetupError, match="hpo token generate" if held else "has no file"):
        take_tokens(database, KEY, tmp_path)


def test_a_token_is_taken_over_with_no_more_than_its_scope(database: Database, tmp_path: Path) -> None:
    with database.transaction() as connection:
        (tmp_path / "admin").write_text(tokens.create(connection, name="mine", scopes=["worker"], key=KEY))
    with pytest.raises(SetupError, match="another scope"):
        take_tokens(database, KEY, tmp_path)


def test_the_login_link_has_the_address_given(database: Database) -> None:
    with database.transaction() as connection:
        token = tokens.create(connection, name="mine", scopes=["admin"], key=KEY)
    link = urlsplit(create_login_link(database, KEY, "http://[::1]:8000/", token=token))
    assert (link.netloc, link.path) == ("[::1]:8000", "/login")
