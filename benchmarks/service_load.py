"""Clients that go through the lives of trials: over HTTP to `hpo serve`, and with Optuna's RDB storage.

Each client is a thread; they share four processes, so that the interpreter of one process is not what is measured.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

REPORTS = 3
_PROCESSES = 4
_TICKS = os.sysconf("SC_CLK_TCK")

Trial = Callable[[], None]
"""The life of one trial: claim it, report three epochs, finish it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What clients got done."""

    trials: int
    seconds: float
    server_cpu_ms: float
    """CPU of the server's processes per trial."""
    postgres_cpu_ms: float
    """The same of Postgres."""
    peak_mib: float
    """Peak memory of the largest process of the server; 0 without one."""

    @property
    def per_second(self) -> float:
        """Trials per second."""
        return self.trials / self.seconds


@contextmanager
def server(url: str, home: Path, *options: str) -> Iterator[tuple[str, str, int]]:
    """Yield address, token and process id of `hpo serve` over a database."""
    command = [sys.executable, "-c", "from hpo.cli import main; main()", "--home", str(home), "serve", "--port", "0"]
    environment = {**os.environ, "DATABASE_URL": url}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
    try:
        while not (home / "server.json").exists():
            if process.poll() is not None:
                raise RuntimeError((home / "log").read_text())
            time.sleep(0.1)
        address = json.loads((home / "server.json").read_text())["url"]
        yield address, (home / "token").read_text().strip(), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def run(
    make: Callable[[str], Trial], clients: int, seconds: float, *, server_pid: int | None, postgres_pid: int
) -> Load:
    """Return what `clients` get done in `seconds`; `make` returns the trial of a client of that name."""
    processes = min(_PROCESSES, clients)
    done = multiprocessing.Value("i", 0)
    start = multiprocessing.Barrier(processes + 1)
    shares = [clients // processes + (place < clients % processes) for place in range(processes)]
    children = [
        multiprocessing.Process(
            target=_child, args=([partial(make, f"client-{place}-{n}") for n in range(share)], seconds, start, done)
        )
        for place, share in enumerate(shares)
    ]
    for child in children:
        child.start()
    start.wait()
    before = cpu_seconds(server_pid), cpu_seconds(postgres_pid)
    began = time.perf_counter()
    for child in children:
        child.join()
    took = time.perf_counter() - began
    server_cpu, postgres_cpu = cpu_seconds(server_pid) - before[0], cpu_seconds(postgres_pid) - before[1]
    trials = max(done.value, 1)
    return Load(
        trials=done.value,
        seconds=took,
        server_cpu_ms=1000 * server_cpu / trials,
        postgres_cpu_ms=1000 * postgres_cpu / trials,
        peak_mib=max((_peak_mib(pid) for pid in tree(server_pid)), default=0.0),
    )


def http_trial(address: str, token: str, study: str, name: str, *, reports: int = REPORTS) -> Trial:
    """Return the trial of a worker that keeps its connection open."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=120)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    worker = {"name": name, "host": "here", "pid": os.getpid(), "device": "cpu"}

    def call(path: str, body: dict[str, Any]) -> Any:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
        return json.loads(content)

    def trial() -> None:
        lease = call("/v1/leases", {"worker": worker, "lease_id": str(uuid4()), "study": study})
        fence = {"attempt": lease["attempt"], "lease_id": lease["lease_id"]}
        path = f"/v1/trials/{lease['trial_id']}"
        for step in range(1, reports + 1):
            metrics = {"val_top1": 0.4 + 0.1 * (lease["number"] % 7) * step / reports}
            sent = {"step": step, "metrics": metrics, "wall_seconds": 1.0, "gpu_seconds": 1.0}
            call(f"{path}/reports", {**fence, "measurements": [sent]})
        call(f"{path}/finish", {**fence, "outcome": "completed", "metrics": metrics})

    return trial


def waits(address: str, token: str, study: str, *, trials: int) -> list[float]:
    """Return the seconds that each claim of one worker took, from its first request to its lease."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=120)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Prefer": "wait=2"}
    worker = {"name": "waiting", "host": "here", "pid": os.getpid(), "device": "cpu"}
    found = []
    for _ in range(trials):
        began, lease = time.perf_counter(), None
        while lease is None:
            body = {"worker": worker, "lease_id": str(uuid4()), "study": study}
            connection.request("POST", "/v1/leases", json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            lease = json.loads(content) if answer.status == 200 else None
        found.append(time.perf_counter() - began)
        end = {"attempt": lease["attempt"], "lease_id": lease["lease_id"], "outcome": "completed"}
        body = {**end, "metrics": {"val_top1": 0.5}}
        connection.request("POST", f"/v1/trials/{lease['trial_id']}/finish", json.dumps(body), headers)
        connection.getresponse().read()
    return found[1:]  # the first waits for the optimizer to start


def optuna_trial(url: str, study_name: str, _name: str) -> Trial:
    """Return the trial of a program that uses Optuna with its RDB storage."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=study_name, storage=_optuna_storage(url), sampler=optuna.samplers.RandomSampler()
    )

    def trial() -> None:
        asked = study.ask()
        asked.suggest_float("lr", 1e-5, 1.0, log=True)
        asked.suggest_float("dropout", 0.0, 0.8)
        for step in range(1, REPORTS + 1):
            asked.report(0.4 + 0.01 * step, step)
        study.tell(asked, 0.5)

    return trial


def new_optuna_study(url: str, name: str) -> None:
    """Create a study in Optuna's tables."""
    import optuna

    optuna.create_study(study_name=name, storage=_optuna_storage(url))


def _optuna_storage(url: str) -> Any:
    import optuna

    return optuna.storages.RDBStorage(url, engine_kwargs={"pool_size": 20, "max_overflow": 20})


def _child(clients: Sequence[Callable[[], Trial]], seconds: float, start: Any, done: Any) -> None:
    trials = [make() for make in clients]
    start.wait()
    ends = time.perf_counter() + seconds
    threads = [threading.Thread(target=partial(_repeat, trial, ends, done)) for trial in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _repeat(trial: Trial, ends: float, done: Any) -> None:
    while time.perf_counter() < ends:
        trial()
        with done.get_lock():
            done.value += 1


def tree(pid: int | None) -> list[int]:
    """Return a process and all below it that are there."""
    if pid is None:
        return []
    children: list[str] = []
    # Of all threads: `hpo serve` starts processes from several.
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            children += (task / "children").read_text().split()
    return [pid, *(below for child in children for below in tree(int(child)))]


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU seconds of a process and all below it, those that have ended included."""
    ticks = 0
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended: its seconds are those of its parent now
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
