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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import h11

from ..settings import read_server_file
from .problems import UnreachableError

PATH: Final = "/v1/identity"
NONCE_CHARACTERS: Final = 64
_SECONDS: Final = 5.0
"""How long the answer may take."""
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


def proof(key: str, *, nonce: str, url: str) -> str:
    """Return what the service at `url` answers to `nonce`, in hexadecimal digits."""
    return hmac.digest(key.encode(), f"{nonce}\n{url}".encode(), "sha256").hex()


class Challenge:
    """Asks the program at `url` for a proof on every new connection; `server_file` has the key."""

    def __init__(self, url: str, server_file: Path) -> None:
        self._url = url
        self._server_file = server_file
        self._ready = _OVER_TLS if url.startswith("https:") else _IN_THE_CLEAR

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Watch a request of httpcore; it is ended when its new connection leads to a stranger.

        Raises:
            UnreachableError: the proof was wrong, or nothing is served from the data directory.
        """
        if event not in self._ready:
            return
        stream: Stream = info["return_value"]
        try:
            self._check(stream)
        except BaseException:
            stream.close()
            raise

    def _check(self, stream: Stream) -> None:
        home = self._server_file.parent
        served = read_server_file(self._server_file)
        if served is None or served.url != self._url:
            raise UnreachableError(
                f"no service of {home} runs at {self._url}; start it with `hpo serve`, or name the address with --url",
                reason=f"{self._server_file} does not name it",
            )
        nonce = secrets.token_hex(NONCE_CHARACTERS // 2)
        expected = proof(served.key, nonce=nonce, url=self._url)
        given = _ask(stream, self._url, nonce).encode("ascii", "replace")
        if not hmac.compare_digest(given, expected.encode()):
            raise UnreachableError(
                f"the program at {self._url} is not the service of {home}, so it was not sent the token; "
                "start the service with `hpo serve`",
                reason="another program has its address",
            )


def _ask(stream: Stream, url: str, nonce: str) -> str:
    """Return the proof in the answer; an empty text where there is none."""
    connection = h11.Connection(our_role=h11.CLIENT)
    headers = [("Host", urlsplit(url).netloc), ("Accept", "application/json")]
    request = h11.Request(method="GET", target=f"{PATH}?nonce={nonce}", headers=headers)
    stream.write(connection.send(request) or b"", _SECONDS)
    connection.send(h11.EndOfMessage())
    body, received = b"", 0
    with suppress(h11.RemoteProtocolError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                received += len(data := stream.read(_READ_BYTES, _SECONDS))
                if received > _MOST_BYTES:
                    return ""
                connection.receive_data(data)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.ConnectionClosed):
                return ""
        return str(json.loads(body)["proof"])
    return ""
