"""The lease: kept while an epoch is long, found again when the reply to the claim was lost."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hpo.activity import stored_progress
from hpo.protocol import Progress
from hpo.store import Database, workers
from tests.integration.api.service import serving

from .bench import GOOD, Bench, running, wait_until


def test_heartbeats_keep_the_lease_while_nothing_is_measured(database: Database, tmp_path: Path, videos: Path) -> None:
    with (
        serving(database, upkeep_seconds=0.1, lease_seconds=2.0) as service,
        running(
            Bench(
                database=database,
                url=service.url,
                token=service.tokens["worker"],
                home=tmp_path / "home",
                videos=videos,
            )
        ) as bench,
    ):
        study = bench.study("long", [GOOD], task={"epochs": 5000})
        worker = bench.worker("--max-trials", "1", "--hang-minutes", "0.5")  # a sign of life every 3 s
        wait_until(bench.reached(study, 1))
        wait_until(lambda: _progress(bench) is not None, "what the process says of its epoch")
        progress = _progress(bench)
        assert progress is not None
        assert progress.stage in ("training", "validation")
        assert (progress.epochs, progress.total) == (5000, 3 if progress.stage == "training" else progress.total)
        assert progress.loss is not None
        assert progress.clips_per_second is not None
        [child] = worker.children()
        os.kill(child, signal.SIGSTOP)  # the epoch does not end
        before = bench.trial(study)
        wait_until(lambda: (bench.trial(study).lease_expires_at - before.lease_expires_at).total_seconds() > 4)
        after = bench.trial(study)
        assert (after.state, after.attempt, after.retries) == ("running", 1, 0)
        # Without its worker the same lease runs out: it was the heartbeats that kept it.
        worker.signal(signal.SIGKILL)
        wait_until(bench.is_in(study, "suggested"))
        os.kill(child, signal.SIGCONT)


def _progress(bench: Bench) -> Progress | None:
    """Return how far the one worker is with its trial, as everybody can see it."""
    with bench.database.transaction() as connection:
        (seen,) = workers.list_all(connection)
    return stored_progress(seen.progress)


class LossyProxy:
    """Passes connections on to the API, and swallows its answers to the first `lost` of them."""

    def __init__(self, listener: socket.socket, target: tuple[str, int], lost: int) -> None:
        self._listener = listener
        self._target = target
        self._lost = lost
        self.swallowed: list[bytes] = []
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        """Accept until the listener is closed."""
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            number += 1
            thread = threading.Thread(target=self._serve, args=(client, number <= self._lost))
            thread.start()
            self._threads.append(thread)
        for thread in self._threads:
            thread.join()

    def _serve(self, client: socket.socket, swallow: bool) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._back, args=(server, client, swallow))
            back.start()
            _pump(client, server)
            back.join()

    def _back(self, server: socket.socket, client: socket.socket, swallow: bool) -> None:
        if swallow:
            self.swallowed.append(server.recv(65536))
            client.shutdown(socket.SHUT_RDWR)
        else:
            _pump(server, client)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextmanager
def _lossy(url: str, *, lost: int) -> Iterator[tuple[str, LossyProxy]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = LossyProxy(listener, (parts.hostname, parts.port), lost)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_claim_whose_reply_was_lost_finds_its_own_trial(bench: Bench) -> None:
    study = bench.study("lost", [GOOD, GOOD], task={"epochs": 1})
    with _lossy(bench.url, lost=2) as (url, proxy):
        worker = bench.worker("--max-trials", "1", url=url)
        assert worker.wait() == 0, worker.said
    assert len(proxy.swallowed) == 2
    assert all(b"200 OK" in answer for answer in proxy.swallowed)
    first, second = bench.trials(study)
    assert (first.state, first.attempt) == ("completed", 1)
    assert (second.state, second.attempt) == ("suggested", 0)
