"""`hpo serve --processes 3`: processes are killed amid the calls of workers, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from sqlalchemy import text

from hpo.installation import python_command
from hpo.protocol import ClaimRequest, FinishRequest, Lease, Measurement, ReportRequest, WorkerInfo
from hpo.spec import parse_spec
from hpo.store import Database, lifecycle, studies
from hpo.trial import Suggestion
from workers.errors import ApiUnavailableError
from workers.lease.client import ApiClient

from .service import spec

Answer = TypeVar("Answer")
SECONDS = 90.0
PROCESSES = 3
TRIALS = 24
EPOCHS = 3
SECRET = "the key that all processes share"  # noqa: S105 - of this test alone


def until(condition: Callable[[], Any], what: str) -> Any:
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.05)):
        if found := condition():
            return found
        pause.wait(0.05)
    raise AssertionError(f"{what} did not happen within {SECONDS:g} s")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for child in (task / "children").read_text().split()
    ]


def programs(pid: int) -> list[int]:
    """Return the children of a process that run a program of their own.

    Between fork and exec a child has the memory of its parent, so /proc shows the parent's arguments and environment.
    """
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [child for child in children(pid) if Path(f"/proc/{child}/cmdline").read_bytes() not in (own, b"")]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def serving(home: Path, database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `hpo serve` with several processes of the API; it answers."""
    options = ["--home", str(home), "serve", "--port", "0", "--no-optimizer", "--processes", str(PROCESSES)]
    environment = {**os.environ, "DATABASE_URL": database_url, "HPO_SECRET": SECRET, "OMP_NUM_THREADS": "1"}
    with (home / "log").open("wb") as log:
        command = python_command("from hpo.cli import main; main()", *options)
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until((home / "server.json").exists, "the start of the service")
        yield process
    finally:
        process.kill()
        process.wait()


def client_of(home: Path) -> ApiClient:
    url = json.loads((home / "server.json").read_text())["url"]
    return ApiClient(url, (home / "token").read_text().strip(), server_file=home / "server.json")


def persistently(call: Callable[[], Answer]) -> Answer:
    """Make a call that may be repeated, until it is answered."""
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.05)):
        try:
            return call()
        except ApiUnavailableError:
            pause.wait(0.05)
    raise AssertionError("the service does not answer")


def work(connect: Callable[[], ApiClient], name: str, done: list[int]) -> None:
    """Run trials until there are none; `done` gets those whose result was acknowledged."""
    info = WorkerInfo(name=name, host="here", pid=1, device="cpu")
    with connect() as client:
        while True:
            asked = ClaimRequest(worker=info, lease_id=uuid4())
            lease = persistently(partial(client.claim, asked))
            if not isinstance(lease, Lease):
                return
            fence: dict[str, Any] = {"attempt": lease.attempt, "lease_id": lease.lease_id}
            for step in range(1, EPOCHS + 1):
                sent = Measurement(step=step, metrics={"val_top1": 0.1 * step}, wall_seconds=1, gpu_seconds=1)
                report = ReportRequest(**fence, measurements=[sent])
                persistently(partial(client.report, lease.trial_id, report))
            end = FinishRequest(**fence, outcome="completed", metrics={"val_top1": 0.3})
            persistently(partial(client.finish, lease.trial_id, end))
            done.append(lease.trial_id)


@pytest.fixture
def study(database: Database) -> int:
    """A study whose trials all wait."""
    return waiting_study(database)


def waiting_study(database: Database) -> int:
    """Make a study whose trials all wait."""
    with database.transaction() as connection:
        study_id = studies.create(connection, parse_spec(spec(budget={"trials": TRIALS})), actor="test").id
        generation = studies.acquire_generator(connection, study_id, "test", 3600.0)
        assert generation is not None
        found = [Suggestion(params={"lr": 0.001 * (n + 1), "dropout": 0.1}, generator="sobol") for n in range(TRIALS)]
        lifecycle.suggest(connection, study_id, found, owner="test", generation=generation)
    return study_id


@pytest.mark.slow
@pytest.mark.usefixtures("study")
def test_a_process_that_is_killed_amid_the_calls_of_workers_loses_nothing(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    done: list[int] = []
    with serving(tmp_path, database_url) as service, ThreadPoolExecutor() as pool:
        first = until(lambda: len(found := children(service.pid)) == PROCESSES and found, "all processes")
        workers = [pool.submit(work, partial(client_of, tmp_path), f"w{number}", done) for number in range(4)]
        until(lambda: len(done) >= 2, "the first results")
        for victim in first[:2]:  # at least one of them has connections
            os.kill(victim, signal.SIGKILL)
        for worker in workers:
            worker.result(SECONDS)
        again = until(
            lambda: len(found := [pid for pid in children(service.pid) if is_alive(pid)]) == PROCESSES and found,
            "processes in place of those that were killed",
        )
        assert len(set(again) & set(first)) == 1
        with client_of(tmp_path) as client:
            assert persistently(partial(client.claim, _nobody())) is not None
        service.send_signal(signal.SIGTERM)
        assert service.wait(SECONDS) == 0
        assert not any(is_alive(pid) for pid in again)
    assert not (tmp_path / "server.json").exists()
    with database.transaction() as connection:
        count = text("SELECT count(*), count(DISTINCT trial_id) FROM measurement")
        assert tuple(connection.execute(count).one()) == (TRIALS * EPOCHS, TRIALS)
        ended = connection.execute(text("SELECT id FROM trial WHERE state = 'completed' AND attempt = 1")).scalars()
        assert sorted(ended) == sorted(done)
    assert len(done) == len(set(done)) == TRIALS


def _nobody() -> ClaimRequest:
    return ClaimRequest(worker=WorkerInfo(name="late", host="here", pid=1, device="cpu"), lease_id=uuid4())


@pytest.mark.slow
def test_the_processes_end_when_the_service_is_killed(database_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, database_url) as service:
        found = until(lambda: len(pids := programs(service.pid)) == PROCESSES and pids, "all processes")
        for place in ("environ", "cmdline"):
            for said in (Path(f"/proc/{pid}/{place}").read_bytes() for pid in found):
                assert database_url.encode() not in said
                assert SECRET.encode() not in said
        service.kill()
        service.wait()
        until(lambda: not any(is_alive(pid) for pid in found), "the end of the processes")
