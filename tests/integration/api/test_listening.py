"""What a server believes of a request's headers, by which names it may be called, TLS, and its proof of identity."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest

from api.config import Identity
from hpo.cli.listening import Listening
from hpo.client import Client, UnreachableError
from hpo.client.identity import NONCE_CHARACTERS, proof
from hpo.errors import SetupError
from hpo.store import Database

from .service import Service, serving

TLS = Path(__file__).parent / "tls"
CERTIFICATE = TLS / "certificate.pem"
NONCE = "0" * NONCE_CHARACTERS


@pytest.mark.parametrize("path", ["/v1/health", "/v1/studies", "/dashboard", "/login", "/", "/docs"])
def test_a_page_whose_name_was_made_to_lead_here_is_refused(empty_service: Service, path: str) -> None:
    """A browser lets a page of evil.example read what evil.example answers, whatever machine that name leads to."""
    with empty_service.http() as http:
        answer = http.get(path, headers={"Host": "evil.example:8000"})
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert "not called 'evil.example:8000'; if it should be, start it with --allowed-host" in answer.json()["detail"]


def test_a_request_without_a_host_is_of_no_browser(empty_service: Service) -> None:
    address = httpx.URL(empty_service.url)
    with socket.create_connection((address.host, address.port or 0), timeout=30) as connection:
        connection.sendall(b"GET /v1/health HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_refused_and_others_are_answered(empty_service: Service) -> None:
    address = httpx.URL(empty_service.url)
    with socket.create_connection((address.host, address.port or 0), timeout=30) as connection:
        connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        with suppress(ConnectionError):  # it has answered and closed before all of it was sent
            for number in range(1024):
                connection.sendall(f"X-{number}: ".encode() + b"a" * 1024 + b"\r\n")
            connection.sendall(b"\r\n")
        with suppress(ConnectionError):
            assert not connection.recv(100).startswith(b"HTTP/1.1 200")
    with empty_service.http() as http:
        assert http.get("/v1/health").status_code == 200


def test_further_names_are_those_of_the_configuration(database: Database) -> None:
    with serving(database, names=frozenset({"hpo.example.org"})) as service, service.http() as http:
        assert http.get("/v1/studies", headers={"Host": "HPO.example.org"}).status_code == 200
        assert http.get("/v1/studies", headers={"Host": "example.org"}).status_code == 421


def test_a_client_cannot_pass_as_many_or_as_one_with_tls(service: Service) -> None:
    with httpx.Client(base_url=service.url, timeout=30) as browser:
        answers = [
            browser.post("/login", data={"token": "x"}, headers={"X-Forwarded-For": f"10.0.0.{number}"})
            for number in range(21)
        ]
        assert answers[-1].status_code == 429
        spoofed = {"X-Forwarded-Proto": "https", "Host": "127.0.0.1"}
        right = browser.post("/login", data={"token": service.tokens["read"]}, headers=spoofed)
    (cookie,) = SimpleCookie(right.headers["set-cookie"]).values()
    assert (cookie.key, cookie["secure"]) == ("hpo_session_80", "")


def test_a_proxy_that_was_named_is_believed(database: Database) -> None:
    with serving(database, listening=Listening(trusted_proxies=["127.0.0.1"])) as service:
        forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.1", "Host": "127.0.0.1"}
        answer = httpx.post(f"{service.url}/login", data={"token": service.tokens["read"]}, headers=forwarded)
    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (cookie.key, cookie["secure"]) == ("hpo_session_443", True)


# ---------------------------------------------------------------- TLS


@pytest.fixture
def secure(database: Database) -> Iterator[Service]:
    """A server with a certificate that it signed itself."""
    with serving(database, listening=Listening(certificate=CERTIFICATE, private_key=TLS / "key.pem")) as running:
        yield running


def test_with_a_certificate_it_speaks_tls_and_nothing_else(secure: Service) -> None:
    assert secure.url.startswith("https://")
    with Client(secure.url, secure.tokens["admin"], ca_file=CERTIFICATE) as client:
        assert client.studies() == []
    untrusting = Client(secure.url, secure.tokens["admin"])
    with untrusting, pytest.raises(SetupError, match=r"is not trusted \(self-signed certificate\).*HPO_CA_FILE"):
        untrusting.studies()
    plain = Client(secure.url.replace("https", "http"), secure.tokens["admin"])
    with plain, pytest.raises(UnreachableError):
        plain.studies()


# ---------------------------------------------------------------- identity


def test_the_service_proves_that_it_has_the_key(database: Database, tmp_path: Path) -> None:
    identity = Identity(url="http://127.0.0.1:8000", key="of the data directory")
    assert "of the data" not in repr(identity)
    with serving(database, identity=identity) as service:
        answer = httpx.get(f"{service.url}/v1/identity", params={"nonce": NONCE})
        assert answer.json() == {"proof": proof(identity.key, nonce=NONCE, url=identity.url)}
        for wrong in ("", "0", NONCE + "0", NONCE[:-1] + "g", NONCE[:-1] + "\n"):
            assert httpx.get(f"{service.url}/v1/identity", params={"nonce": wrong}).status_code == 422
        file = tmp_path / "server.json"
        file.write_text(json.dumps({"url": service.url, "key": identity.key}))
        client = Client(service.url, service.tokens["read"], server_file=file)
        with client, pytest.raises(UnreachableError, match="is not the service of"):
            client.studies()


def test_a_service_that_no_data_directory_names_has_nothing_to_prove(empty_service: Service) -> None:
    answer = httpx.get(f"{empty_service.url}/v1/identity", params={"nonce": NONCE})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
