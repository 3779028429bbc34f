"""The connection that both clients use: what is sent, and errors of addresses and networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from hpo.client.connection import Connection, UnreachableError
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
