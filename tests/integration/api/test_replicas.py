"""Three `hpo serve` behind a balancer: one is killed amid the calls of workers, and nobody notices."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from hpo.installation import python_command
from hpo.store import Database, tokens
from workers.lease.client import ApiClient

from .test_processes import EPOCHS, SECONDS, TRIALS, until, waiting_study, work

REPLICAS = 3


class Balancer:
    """Gives each new connection to the next replica that takes it, as a Service of Kubernetes does."""

    def __init__(self, door: socket.socket, ports: Sequence[int]) -> None:
        self.url = f"http://127.0.0.1:{door.getsockname()[1]}"
        self._door = door
        self._turns = itertools.cycle(ports)
        self._count = len(ports)

    def serve(self) -> None:
        """Pass connections on until the door is shut."""
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        for port in itertools.islice(self._turns, self._count):
            with suppress(OSError):
                server = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=_forward, args=(server, client), daemon=True).start()
                return _forward(client, server)
        return client.close()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError), source, target:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def _replica(home: Path, database_url: str, secrets: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = ["--home", str(home), "serve", "--port", "0", "--no-optimizer", "--tokens-dir", str(secrets)]
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "HPO_SECRET_FILE": str(secrets / "key"),
        "OMP_NUM_THREADS": "1",
    }
    home.mkdir(mode=0o700)
    with (home / "log").open("wb") as log:
        command = python_command("from hpo.cli import main; main()", *options)
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _balanced(
    folder: Path, database_url: str, secrets: Path
) -> Iterator[tuple[Balancer, list[subprocess.Popen[bytes]]]]:
    with ExitStack() as stack:
        homes = [folder / f"replica-{number}" for number in range(REPLICAS)]
        replicas = [stack.enter_context(_replica(home, database_url, secrets)) for home in homes]
        files = [home / "server.json" for home in homes]
        until(lambda: all(file.exists() for file in files), "the start of all replicas")
        ports = [httpx.URL(json.loads(file.read_text())["url"]).port or 0 for file in files]
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        balancer = Balancer(door, ports)
        threading.Thread(target=balancer.serve, daemon=True).start()
        yield balancer, replicas
        door.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What all replicas share: the key, and tokens that were made before any of them."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "key").write_text("the key that all replicas share")
    for scope in ("admin", "worker"):
        (folder / scope).write_text(tokens.generate())
    return folder


def _logged_in(url: str, token: str) -> Callable[[], int]:
    """Return what reads a page with a session of a browser, over a new connection, and says the status."""
    headers = {"Authorization": f"Bearer {token}"}
    path = httpx.post(f"{url}/v1/login-links", headers=headers, timeout=SECONDS).json()["path"]
    cookies = httpx.get(f"{url}{path}", timeout=SECONDS).cookies
    return lambda: httpx.get(url, headers={"Cookie": _cookie_header(cookies)}, timeout=SECONDS).status_code


def _cookie_header(cookies: httpx.Cookies) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


@pytest.mark.slow
def test_a_replica_that_is_killed_amid_the_calls_of_workers_loses_nothing(
    database: Database, database_url: str, tmp_path: Path, secrets: Path
) -> None:
    waiting_study(database)
    done: list[int] = []
    with _balanced(tmp_path, database_url, secrets) as (balancer, replicas), ThreadPoolExecutor() as pool:
        page = _logged_in(balancer.url, (secrets / "admin").read_text())
        assert [page() for _ in range(REPLICAS)] == [200] * REPLICAS, "a session holds at every replica"
        connect = partial(ApiClient, balancer.url, (secrets / "worker").read_text())
        workers = [pool.submit(work, connect, f"w{number}", done) for number in range(2 * REPLICAS)]
        until(lambda: len(done) >= 2, "the first results")
        replicas[0].send_signal(signal.SIGKILL)
        assert [page() for _ in range(REPLICAS)] == [200] * REPLICAS
        for worker in workers:
            worker.result(SECONDS)
        for replica in replicas[1:]:
            replica.send_signal(signal.SIGTERM)
        assert [replica.wait(SECONDS) for replica in replicas[1:]] == [0, 0]
    with database.transaction() as connection:
        count = text("SELECT count(*), count(DISTINCT trial_id) FROM measurement")
        assert tuple(connection.execute(count).one()) == (TRIALS * EPOCHS, TRIALS)
        ended = connection.execute(text("SELECT id FROM trial WHERE state = 'completed' AND attempt = 1")).scalars()
        assert sorted(ended) == sorted(done)
    assert len(done) == len(set(done)) == TRIALS
