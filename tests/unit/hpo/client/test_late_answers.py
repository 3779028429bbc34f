"""Services that take longer to answer than the client waits, at a real socket."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hpo.client import AsyncClient, Client, UnreachableError, steps
from hpo.client.connection import Connection
from hpo.client.creating import create_new_study

WAITS_SECONDS = 0.2
"""For how long the clients of these tests wait for an answer."""
STUDY: Any = {"name": "s", "state": "active"}


class LateService(ThreadingHTTPServer):
    """Never answers the requests whose numbers are in `late`, though it carries them out; tells which it had."""

    daemon_threads = True

    def __init__(self, late: frozenset[int], *, knows: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.late = late
        self.knows = knows
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: LateService

    def _answer(self) -> None:
        service = self.server
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        number = len(service.asked)
        service.asked.append(self.command)
        status, body = 200, json.dumps(STUDY).encode()
        if self.command == "POST":
            service.knows = True
        elif not service.knows:
            status, body = 404, json.dumps({"type": "/problems/not-found", "detail": "no study"}).encode()
        if number in service.late:
            self.rfile.read()  # until the client has hung up
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def late_service(*late: int, knows: bool = False) -> Iterator[LateService]:
    with LateService(frozenset(late), knows=knows) as service:
        thread = threading.Thread(target=partial(service.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "AGAIN_SECONDS", 0.01)


def test_a_patient_client_asks_again_what_changes_nothing() -> None:
    with (
        late_service(0, 1, knows=True) as service,
        Client(service.url, timeout=WAITS_SECONDS, patience_seconds=60.0) as client,
    ):
        assert client.study("s") == STUDY
    assert service.asked == ["GET"] * 3


def test_with_asyncio_too() -> None:
    async def ask(url: str) -> object:
        async with AsyncClient(url, timeout=WAITS_SECONDS, patience_seconds=60.0) as client:
            return await client.study("s")

    with late_service(0, 1, knows=True) as service:
        assert asyncio.run(ask(service.url)) == STUDY
    assert service.asked == ["GET"] * 3


def test_without_patience_the_first_late_answer_is_reported() -> None:
    with late_service(0, knows=True) as service, Client(service.url, timeout=WAITS_SECONDS) as client:
        with pytest.raises(UnreachableError, match="did not answer in time; try again shortly"):
            client.study("s")
        assert service.asked == ["GET"]


def test_what_changes_something_is_asked_once_and_the_error_says_that_it_may_be_done() -> None:
    with (
        late_service(0) as service,
        Client(service.url, timeout=WAITS_SECONDS, patience_seconds=60.0) as client,
    ):
        with pytest.raises(UnreachableError, match="it may have done what it was asked: look before you ask again"):
            client.create_study(STUDY)
        assert service.asked == ["POST"]


def test_a_study_whose_answer_was_lost_is_looked_up_and_not_created_twice() -> None:
    with (
        late_service(0, 1) as service,
        Client(service.url, timeout=WAITS_SECONDS, patience_seconds=60.0) as client,
    ):
        assert client.run(create_new_study(STUDY)) == STUDY
    assert service.asked == ["POST", "GET", "GET"]


def test_the_proof_of_the_service_may_take_as_long_as_every_answer(tmp_path: Path) -> None:
    with late_service(0) as service:
        file = tmp_path / "server.json"
        file.write_text(json.dumps({"url": service.url, "key": "k" * 64}))
        connection = Connection(service.url, "hpo_t", timeout=WAITS_SECONDS, server_file=file)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="did not answer in time"):
            connection.send("GET", "/v1/studies")
        # The proof had a limit of its own once, of 5 s, which busy machines passed.
        assert time.monotonic() - began < 4.0
        connection.close()
