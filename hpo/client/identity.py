"""Proof that the program at an address is the service of this data directory, before it is sent a token.

`hpo serve` writes its address and a fresh key into `server.json`, which only this user can read. When the service has
been killed, another program may listen at that address. So the client sends a number that it has never sent before, and
the service answers with an HMAC of that number and of its own address: only who has the key can, and an answer that a
stranger had from the service at another address does not fit.

The proof is asked for on each new connection, before anything else, and what follows goes over the same connection.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import h11

from ..settings import read_server_file
from .problems import UnreachableError

PATH: Final = "/v1/identity"
NONCE_CHARACTERS: Final = 64
_IN_THE_CLEAR: Final = frozenset({"connection.connect_tcp.complete"})
_OVER_TLS: Final = frozenset({"connection.start_tls.complete", "proxy.start_tls.complete"})
"""Events of httpcore after which a connection takes requests."""
_READ_BYTES: Final = 4_096
_MOST_BYTES: Final = 65_536


class Stream(Protocol):
    """A connected socket, as httpcore has it."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what comes next; nothing at the end."""
        ...

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        ...

    def close(self) -> None:
        """Close the socket."""
        ...


class AsyncStream(Protocol):
    """The same for asyncio."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what comes next; nothing at the end."""
        ...

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        ...

    async def aclose(self) -> None:
        """Close the socket."""
        ...


def proof(key: str, *, nonce: str, url: str) -> str:
    """Return what the service at `url` answers to `nonce`, in hexadecimal digits."""
    return hmac.digest(key.encode(), f"{nonce}\n{url}".encode(), "sha256").hex()


class _Expectation:
    """What the program at `url` must prove; `server_file` has the key, and each read may take `seconds`."""

    def __init__(self, url: str, server_file: Path, *, seconds: float | None) -> None:
        self._url = url
        self._server_file = server_file
        self._seconds = seconds
        self._ready = _OVER_TLS if url.startswith("https:") else _IN_THE_CLEAR

    def _question(self) -> tuple[Generator[bytes | None, bytes, str], str]:
        """Return the steps of asking for a proof, and the proof that is expected.

        Raises:
            UnreachableError: nothing is served from the data directory.
        """
        served = read_server_file(self._server_file)
        if served is None or served.url != self._url:
            raise UnreachableError(
                f"no service of {self._server_file.parent} runs at {self._url}; start it with `hpo serve`, or name "
                "the address with --url",
                reason=f"{self._server_file} does not name it",
            )
        nonce = secrets.token_hex(NONCE_CHARACTERS // 2)
        return _ask(self._url, nonce), proof(served.key, nonce=nonce, url=self._url)

    def _compare(self, given: str, expected: str) -> None:
        if not hmac.compare_digest(given.encode("ascii", "replace"), expected.encode()):
            raise UnreachableError(
                f"the program at {self._url} is not the service of {self._server_file.parent}, so it was not sent the "
                "token; start the service with `hpo serve`",
                reason="another program has its address",
            )


class Challenge(_Expectation):
    """Asks the program at `url` for a proof on every new connection."""

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Watch a request of httpcore; it is ended when its new connection leads to a stranger.

        Raises:
            UnreachableError: the proof was wrong, or nothing is served from the data directory.
        """
        if event not in self._ready:
            return
        stream: Stream = info["return_value"]
        try:
            steps, expected = self._question()
            request = next(steps)
            stream.write(request or b"", self._seconds)
            try:
                steps.send(b"")
                while True:
                    steps.send(stream.read(_READ_BYTES, self._seconds))
            except StopIteration as done:
                self._compare(done.value, expected)
        except BaseException:  # cancelled, too: nobody else would close it
            stream.close()
            raise


class AsyncChallenge(_Expectation):
    """The same for asyncio."""

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Watch a request of httpcore, as `Challenge` does."""
        if event not in self._ready:
            return
        stream: AsyncStream = info["return_value"]
        try:
            steps, expected = self._question()
            request = next(steps)
            await stream.write(request or b"", self._seconds)
            try:
                steps.send(b"")
                while True:
                    steps.send(await stream.read(_READ_BYTES, self._seconds))
            except StopIteration as done:
                self._compare(done.value, expected)
        except BaseException:  # as above
            await stream.aclose()
            raise


def _ask(url: str, nonce: str) -> Generator[bytes | None, bytes, str]:
    """Yield the request, then None whenever more of the answer is needed; return its proof, empty where it has none."""
    connection = h11.Connection(our_role=h11.CLIENT)
    headers = [("Host", urlsplit(url).netloc), ("Accept", "application/json")]
    request = h11.Request(method="GET", target=f"{PATH}?nonce={nonce}", headers=headers)
    yield connection.send(request) or b""
    connection.send(h11.EndOfMessage())
    body, received = b"", 0
    with suppress(h11.RemoteProtocolError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                received += len(data := (yield None))
                if received > _MOST_BYTES:
                    return ""
                connection.receive_data(data)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.ConnectionClosed):
                return ""
        return str(json.loads(body)["proof"])
    return ""
