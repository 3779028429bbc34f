"""What is said of an address at which no Ray cluster answers; no Ray is needed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from hpo.errors import SetupError
from hpo.launch.ray_address import address_of, require_answer


@pytest.fixture
def listening() -> Iterator[str]:
    """`HOST:PORT` of a server on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_answers_is_taken(listening: str, scheme: str) -> None:
    require_answer(scheme + listening)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_one_sentence_names_an_address_at_which_nothing_answers(scheme: str) -> None:
    with socket.socket() as bound:  # bound and not listening: a connection is refused, and nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(SetupError, match=rf"^nothing answers at {address}, .*Connection refused.*--address"):
            require_answer(address)


@pytest.mark.parametrize("host", ["head.invalid", "head..invalid", "h" * 70])
def test_a_host_that_has_no_address_is_said_in_a_sentence(host: str) -> None:
    with pytest.raises(SetupError, match=rf"^nothing answers at {re.escape(host)}:6379"):
        require_answer(f"{host}:6379")


@pytest.mark.parametrize("address", ["head", "head:", "head:ninety", "head:99999", "[::1:6379"])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(SetupError, match=r"is not HOST:PORT"):
        require_answer(address)


def test_ray_finds_a_cluster_where_no_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of(None) == "auto"
    require_answer("auto")
    require_answer("anyscale://cluster")


def test_the_environment_says_where_the_cluster_is_unless_the_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert address_of(None) == "head:6379"
    assert address_of("other:6379") == "other:6379"
