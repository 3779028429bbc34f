"""The token is sent only to the service that wrote its address and its key into the data directory."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hpo.client.connection import AsyncConnection, Connection
from hpo.client.identity import proof
from hpo.client.problems import UnreachableError
from hpo.errors import StoreUnavailableError

CERTIFICATE = Path(__file__).resolve().parents[3] / "integration" / "api" / "tls" / "certificate.pem"
KEY = "of this data directory"
Answer = Callable[["Program", str], bytes]


class Program(ThreadingHTTPServer):
    """A program at an address: it answers a challenge as the test says, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.closes = False
        self.paths: list[str] = []
        self.clients: list[int] = []
        self.nonces: list[str] = []
        self.tokens: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Program

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        self.server.paths.append(target.path)
        self.server.clients.append(self.client_address[1])
        if "Authorization" in self.headers:
            self.server.tokens.append(self.headers["Authorization"])
        body = b"[]"
        if target.path == "/v1/identity":
            [nonce] = parse_qs(target.query)["nonce"]
            self.server.nonces.append(nonce)
            body = self.server.answer(self.server, nonce)
        elif self.server.closes:
            self.close_connection = True
        if not body:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _says(text: Any) -> bytes:
    return json.dumps({"proof": text}).encode()


def honest(program: Program, nonce: str) -> bytes:
    """Answer as the service does."""
    return _says(proof(KEY, nonce=nonce, url=program.url))


STRANGERS: dict[str, Answer] = {
    "has another key": lambda program, nonce: _says(proof("a guess", nonce=nonce, url=program.url)),
    "asks the service at its address": lambda _, nonce: _says(proof(KEY, nonce=nonce, url="http://127.0.0.1:1")),
    "repeats an old answer": lambda program, _: _says(proof(KEY, nonce="0" * 64, url=program.url)),
    "sends the nonce back": lambda _, nonce: _says(nonce),
    "sends an empty proof": lambda *_: _says(""),
    "sends other letters": lambda *_: _says("\ud800\xe9"),
    "sends no text": lambda *_: _says(None),
    "sends a list": lambda *_: b"[]",
    "sends no JSON": lambda *_: b"\xff\xfe",
    "sends too much": lambda *_: b"x" * 100_000,
    "closes": lambda *_: b"",
}


@contextmanager
def running(answer: Answer, *, over_tls: bool = False) -> Iterator[Program]:
    """Run a program until the block ends."""
    with Program(answer) as program:
        if over_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
            program.socket = context.wrap_socket(program.socket, server_side=True)
            program.url = program.url.replace("http", "https")
        thread = threading.Thread(target=partial(program.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield program
        finally:
            program.shutdown()
            thread.join()


@contextmanager
def connected(program: Program, home: Path, *, served: str | None = None) -> Iterator[Connection]:
    """Yield a connection whose data directory names the program, or `served`."""
    file = home / "server.json"
    file.write_text(json.dumps({"url": served or program.url, "key": KEY}))
    connection = Connection(program.url, "hpo_t", timeout=10.0, server_file=file, ca_file=CERTIFICATE)
    try:
        yield connection
    finally:
        connection.close()


def test_the_service_proves_itself_once_for_each_connection_and_over_it(tmp_path: Path) -> None:
    with running(honest) as program, connected(program, tmp_path) as connection:
        for _ in range(2):
            assert connection.send("GET", "/v1/studies").json() == []
        program.closes = True
        for _ in range(2):
            assert connection.send("GET", "/v1/studies").json() == []
    assert program.paths == ["/v1/identity", *["/v1/studies"] * 3, "/v1/identity", "/v1/studies"]
    assert len(set(program.clients[:4])) == len(set(program.clients[4:])) == 1
    assert program.tokens == ["Bearer hpo_t"] * 4
    assert len(set(program.nonces)) == 2, "an answer cannot be used again"


def _ask_with_asyncio(program: Program, home: Path, count: int) -> None:
    async def ask() -> None:
        file = home / "server.json"
        file.write_text(json.dumps({"url": program.url, "key": KEY}))
        connection = AsyncConnection(program.url, "hpo_t", timeout=10.0, server_file=file, ca_file=CERTIFICATE)
        try:
            for _ in range(count):
                assert (await connection.send("GET", "/v1/studies")).json() == []
        finally:
            await connection.close()

    asyncio.run(ask())


@pytest.mark.parametrize("over_tls", [False, True])
def test_with_asyncio_it_proves_itself_too(tmp_path: Path, over_tls: bool) -> None:
    with running(honest, over_tls=over_tls) as program:
        _ask_with_asyncio(program, tmp_path, 2)
    assert program.paths == ["/v1/identity", "/v1/studies", "/v1/studies"]
    assert program.tokens == ["Bearer hpo_t"] * 2


@pytest.mark.parametrize("answer", STRANGERS.values(), ids=STRANGERS)
def test_with_asyncio_a_stranger_is_sent_no_token(tmp_path: Path, answer: Answer) -> None:
    with running(answer) as program, pytest.raises(StoreUnavailableError):
        _ask_with_asyncio(program, tmp_path, 1)
    assert program.tokens == []


def test_over_tls_it_proves_itself_too(tmp_path: Path) -> None:
    with running(honest, over_tls=True) as program, connected(program, tmp_path) as connection:
        assert connection.send("GET", "/v1/studies").json() == []
    assert (program.paths, program.tokens) == (["/v1/identity", "/v1/studies"], ["Bearer hpo_t"])
    with (
        running(STRANGERS["has another key"], over_tls=True) as program,
        connected(program, tmp_path) as connection,
        pytest.raises(UnreachableError, match="is not the service of"),
    ):
        connection.send("GET", "/v1/studies")
    assert (program.paths, program.tokens) == (["/v1/identity"], [])


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_never_sees_the_token(tmp_path: Path, stranger: str) -> None:
    with (
        running(STRANGERS[stranger]) as program,
        connected(program, tmp_path) as connection,
        pytest.raises(UnreachableError, match=f"{program.url} is not the service of {tmp_path}"),
    ):
        connection.send("GET", "/v1/studies")
    assert (program.paths, program.tokens) == (["/v1/identity"], [])
    assert issubclass(UnreachableError, StoreUnavailableError), "a worker waits until its service is back"


def test_a_stranger_that_takes_the_address_later_does_not_see_it_either(tmp_path: Path) -> None:
    with running(honest) as program, connected(program, tmp_path) as connection:
        program.closes = True
        connection.send("GET", "/v1/studies")
        program.answer = STRANGERS["has another key"]
        with pytest.raises(UnreachableError):
            connection.send("GET", "/v1/studies")
    assert len(program.tokens) == 1


@pytest.mark.parametrize("left", [None, "", "[]", '{"url": "http://127.0.0.1:1", "key": "k"}', '{"url": "URL"}'])
def test_nothing_is_sent_where_the_data_directory_does_not_name_the_address(tmp_path: Path, left: str | None) -> None:
    with running(honest) as program, connected(program, tmp_path) as connection:
        file = tmp_path / "server.json"
        file.unlink() if left is None else file.write_text(left.replace("URL", program.url))
        with pytest.raises(UnreachableError, match=f"no service of {tmp_path} runs at {program.url}; start it with"):
            connection.send("GET", "/v1/studies")
    assert program.paths == []
