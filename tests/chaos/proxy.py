"""A network that loses messages: requests and answers are dropped, doubled, and delivered again much later."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHARE = 0.06
"""Of all messages that meet each kind of trouble."""
KINDS = ("request lost", "answer lost", "doubled", "delayed copy")
LATE_SECONDS = (0.5, 6.0)
"""When a delayed copy arrives."""


class Network(ThreadingHTTPServer):
    """Passes requests on to the server at a port of loopback."""

    daemon_threads = True

    def __init__(self, target: int, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.met: Counter[str] = Counter()
        self.calm = threading.Event()
        """Set when nothing is to be lost any more."""
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._lock = threading.Lock()

    def trouble(self) -> str:
        """Return what happens to the next message."""
        with self._lock:
            drawn = self._random.random()
            found = KINDS[int(drawn / SHARE)] if drawn < SHARE * len(KINDS) and not self.calm.is_set() else "none"
            self.met[found] += 1
            return found

    def late(self) -> float:
        """Return after how many seconds a copy arrives."""
        with self._lock:
            return self._random.uniform(*LATE_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: workers are killed in the middle of their requests."""


class _Handler(BaseHTTPRequestHandler):
    server: Network
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Pass a request on, or not."""
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trouble = self.server.trouble()
        if trouble == "request lost":
            return
        if trouble == "delayed copy":
            threading.Timer(self.server.late(), self._forward, [body]).start()
        if trouble == "doubled":
            self._forward(body)
        answer = self._forward(body)
        if answer is None or trouble == "answer lost":
            return
        status, headers, content = answer
        with suppress(OSError):
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=20)
        headers = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
        try:
            connection.request("POST", self.path, body, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def network(target: int, seed: int) -> Iterator[Network]:
    """Run the network while the block does."""
    server = Network(target, seed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
