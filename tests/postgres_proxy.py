"""A proxy before Postgres that counts what clients ask: each question is one round trip to the database."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url

_NAME = ".s.PGSQL.5432"
_QUESTIONS = (b"Q", b"S")
"""A simple query, and the end of an extended one: the client waits for an answer to each."""


class Questions:
    """How many there were; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[bytes] = []

    def add(self, message: bytes) -> None:
        """Count one."""
        with self._lock:
            self._asked.append(message)

    def take(self) -> list[bytes]:
        """Return those since the last time."""
        with self._lock:
            asked, self._asked = self._asked, []
        return asked


@contextmanager
def counted(database_url: str) -> Iterator[tuple[str, Questions]]:
    """Yield another address of a database, and what is asked there."""
    url = make_url(database_url)
    questions = Questions()
    with tempfile.TemporaryDirectory(prefix="hpo-proxy-", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as door:
        door.bind(str(Path(folder) / _NAME))
        door.listen(16)
        threading.Thread(target=_serve, args=(door, url, questions), daemon=True).start()
        through = url.set(host=None, port=None).render_as_string(hide_password=False).partition("?")[0]
        try:
            yield f"{through}?host={quote(folder, safe='')}", questions
        finally:
            door.shutdown(socket.SHUT_RDWR)


def _serve(door: socket.socket, url: URL, questions: Questions) -> None:
    with suppress(OSError):
        while True:
            client, _ = door.accept()
            server = _connect(url)
            threading.Thread(target=_forward_questions, args=(client, server, questions), daemon=True).start()
            threading.Thread(target=_forward, args=(server, client), daemon=True).start()


def _connect(url: URL) -> socket.socket:
    host = str(url.query.get("host") or url.host or "localhost")
    if host.startswith("/"):
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/{_NAME}")
        return server
    return socket.create_connection((host, url.port or 5432))


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError), source, target:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


def _forward_questions(client: socket.socket, server: socket.socket, questions: Questions) -> None:
    """Forward messages one by one: the first, and one that asks for TLS, have no type."""
    has_type = False
    with suppress(OSError), client, server:
        while head := _read(client, 5 if has_type else 8):
            (length,) = struct.unpack(">i", head[1:5] if has_type else head[:4])
            body = _read(client, length - len(head) + has_type)
            if has_type and head[:1] in _QUESTIONS:
                questions.add(body)
            has_type = has_type or struct.unpack(">i", head[4:8])[0] == 196608  # of protocol 3.0: the start
            server.sendall(head + body)


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            return b""
        data += part
    return data
