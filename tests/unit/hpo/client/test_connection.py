"""The connection that both clients use: what is sent, and errors of addresses and networks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from hpo.client import Client
from hpo.client.connection import Connection, is_loopback
from hpo.client.problems import UnreachableError
from hpo.errors import SetupError, StoreUnavailableError


@contextmanager
def _connected(
    handler: httpx.MockTransport | None, *, url: str = "http://api/", token: str | None = None
) -> Iterator[Connection]:
    connection = Connection(url, token, timeout=1.0, transport=handler)
    yield connection
    connection.close()


def _raising(error: Exception) -> httpx.MockTransport:
    def handle(_: httpx.Request) -> httpx.Response:
        raise error

    return httpx.MockTransport(handle)


@pytest.mark.parametrize(("token", "authorization"), [("hpo_t", "Bearer hpo_t"), (None, None)])
def test_a_request_carries_the_token_and_every_status_is_returned(token: str | None, authorization: str | None) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(503, text="away")

    with _connected(httpx.MockTransport(handle), token=token) as connection:
        assert connection.url == "http://api"
        answer = connection.send("POST", "/v1/leases", content="{}", params={"a": 1})
    assert (answer.status_code, answer.text) == (503, "away")
    [request] = seen
    assert (request.method, str(request.url), request.content) == ("POST", "http://api/v1/leases?a=1", b"{}")
    assert request.headers.get("Authorization") == authorization


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8000", "api", ""])
def test_an_address_without_http_is_reported_when_it_is_used(url: str) -> None:
    with _connected(None, url=url) as connection, pytest.raises(SetupError, match="is not the address of an API"):
        connection.send("GET", "/v1/health")


def test_an_address_that_is_not_one_is_reported_at_once() -> None:
    with pytest.raises(
        SetupError, match=r"'http://host:port' is not the address of an API; write something like http://"
    ):
        Connection("http://host:port", None, timeout=1.0)


def test_a_refused_connection_names_the_address_and_keeps_the_reason() -> None:
    with (
        _connected(_raising(httpx.ConnectError("Connection refused"))) as connection,
        pytest.raises(UnreachableError, match="nothing answers at http://api; start it with") as caught,
    ):
        connection.send("GET", "/v1/health")
    assert caught.value.reason == "Connection refused"
    assert isinstance(caught.value, StoreUnavailableError), "trying again later is right"


def test_a_timeout_has_a_message_of_its_own() -> None:
    with (
        _connected(_raising(httpx.ReadTimeout(""))) as connection,
        pytest.raises(UnreachableError, match="http://api did not answer in time") as caught,
    ):
        connection.send("GET", "/v1/health")
    assert caught.value.reason == "ReadTimeout", "an error without a text is known by its class"


OURS = ["127.0.0.1", "127.1.2.3", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "0x7f000001", "2130706433"]
OURS += ["0.0.0.0", "[::]", "a.localhost", socket.gethostname()]  # noqa: S104 - asked, not listened to


@pytest.mark.parametrize("url", [f"http://{host}:1" for host in OURS])
def test_a_proxy_never_sees_what_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Nothing listens at port 1; a proxy that is asked would answer."""
    with (
        _proxied(monkeypatch) as seen,
        _connected(None, url=url, token="hpo_t") as connection,  # noqa: S106 - no token
        pytest.raises(UnreachableError, match="nothing answers at"),
    ):
        connection.send("GET", "/v1/studies")
    assert seen == []


LOOPBACK = {"127.1": True, "::ffff:127.0.0.1": True, "0.0.0.0": False, "::": False, "10.0.0.1": False}  # noqa: S104 - nothing is bound
LOOPBACK |= {socket.gethostname(): False, "localhost.example": False, "": False, "1.2.3.4.5": False}


@pytest.mark.parametrize(("host", "is_ours_alone"), LOOPBACK.items())
def test_only_what_no_other_machine_reaches_is_loopback(host: str, is_ours_alone: bool) -> None:
    assert is_loopback(host) is is_ours_alone


def test_a_proxy_is_used_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    with _proxied(monkeypatch) as seen, _connected(None, url="http://hpo.invalid") as connection:
        assert connection.send("GET", "/v1/health").status_code == 204
    assert seen == ["http://hpo.invalid/v1/health"]


@contextmanager
def _proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Run a proxy that the environment names, and yield what it is asked for."""
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield seen
        server.shutdown()
        thread.join()


def test_certificates_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    for file in (tmp_path / "nothing", tmp_path):
        with pytest.raises(SetupError, match="check HPO_CA_FILE"):
            Connection("https://api", None, timeout=1.0, ca_file=file)


@pytest.mark.parametrize(
    ("status", "kind"), [(502, StoreUnavailableError), (503, StoreUnavailableError), (404, SetupError)]
)
def test_a_page_of_a_proxy_says_that_the_service_is_away_or_that_the_address_is_wrong(
    status: int, kind: type[Exception]
) -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(status, html="<h1>nginx</h1>"))
    with Client("http://api", "hpo_t", transport=page) as client, pytest.raises(kind, match=f"answered {status}"):
        client.studies()
