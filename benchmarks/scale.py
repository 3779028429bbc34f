"""A thousand workers, two hundred studies and a hundred thousand trials against the real API and Postgres.

`python -m benchmarks.scale run` lets synthetic workers go through the lives of trials as fast as the service answers:
what a fleet does in weeks passes in hours. It stops after `--seconds`, or when it is interrupted, and another call goes
on where it was. `report` says the result of all runs so far (`scale_record.py`), and what docs/scaling.md quotes.
Postgres is an embedded one in `--folder`, or that of DATABASE_URL, a database of its own; with the extension
pg_stat_statements, the report names the statements that took most of its time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sqlalchemy import Connection, text

from benchmarks import scale_record
from benchmarks.scale_record import RunRecord
from benchmarks.service_load import cpu_seconds, server, tree
from hpo.spec import parse_spec
from hpo.store import Database, EmbeddedPostgres, migrate
from hpo.store import studies as store_studies
from hpo.store.database import make_engine

POSTGRES = {"max_connections": "200", "shared_buffers": "512MB"}
MODELLED = 20
"""Every so many-th study has the model of `ax`; the others are Sobol points, which cost the service next to nothing."""
RECORD_SECONDS = 20.0
"""How often a run writes down what it has done."""
IDLE_SECONDS = 20.0
"""How long the service is watched without any worker."""

_PREFILL = text("""
WITH made AS (
  INSERT INTO trial (study_id, number, params, generator, state, attempt, lease_worker, started_at, finished_at,
                     metrics, epochs_done, gpu_seconds)
  SELECT :study_id, number, jsonb_build_object('lr', 0.0001 + random() * 0.1, 'dropout', random() * 0.8), 'sobol',
         'completed', 1, 'worker-' || number % 1000, clock_timestamp(), clock_timestamp(),
         jsonb_build_object('val_top1', 0.3 + 0.6 * random(), 'val_loss', 1.0), :epochs, 60.0 * :epochs
  FROM generate_series(:first, :first + :count - 1) AS number RETURNING id
), attempts AS (
  INSERT INTO attempt (trial_id, attempt, worker, claimed_at, seen_at, ended_at, ended_as)
  SELECT id, 1, 'worker-' || id % 1000, clock_timestamp(), clock_timestamp(), clock_timestamp(), 'completed' FROM made
), counted AS (
  UPDATE study SET next_number = next_number + :count, live_trials = live_trials + :count WHERE id = :study_id
)
INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
SELECT id, 1, step, jsonb_build_object('val_top1', 0.9 * (1 - exp(-step / 8.0)) * random(), 'val_loss', 1.0), 60, 60
FROM made, generate_series(1, :epochs) AS step
""")
_ENDED = text("SELECT COALESCE(sum(trials), 0) FROM study_total WHERE state <> 'withdrawn'")
_TABLES = text("""
SELECT relname AS name, n_live_tup AS rows, pg_table_size(relid) AS bytes, pg_indexes_size(relid) AS index_bytes,
       n_dead_tup AS dead, n_tup_upd AS updates, n_tup_hot_upd AS hot
FROM pg_stat_user_tables WHERE n_live_tup > 0 ORDER BY pg_total_relation_size(relid) DESC LIMIT 8
""")
_INDEXES = text("""
SELECT indexrelname AS name, relname AS table, idx_scan AS scans, pg_relation_size(indexrelid) AS bytes
FROM pg_stat_user_indexes WHERE pg_relation_size(indexrelid) > 65536 ORDER BY bytes DESC LIMIT 12
""")
_STATEMENTS = text("""
SELECT calls, total_exec_time AS total_ms, mean_exec_time AS mean_ms, regexp_replace(query, '\\s+', ' ', 'g') AS query
FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid AND datname = current_database()
ORDER BY total_exec_time DESC LIMIT 15
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the installation is."""

    studies: int
    trials: int
    """Of all studies together."""
    epochs: int
    workers: int

    @property
    def each(self) -> int:
        """Trials of one study."""
        return self.trials // self.studies


@dataclass(slots=True)
class Done:
    """What the workers got done; shared by their threads."""

    calls: Counter[str] = field(default_factory=Counter)
    waited: dict[str, list[float]] = field(default_factory=dict)
    """Seconds that calls took by the clock, a sample of them."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, seconds: float) -> None:
        """Count one call."""
        with self.lock:
            self.calls[kind] += 1
            self.waited.setdefault(kind, []).append(seconds)


class SyntheticWorker:
    """Goes through the lives of trials over one connection that stays open, and trains nothing."""

    def __init__(self, address: str, token: str, name: str, epochs: int, done: Done) -> None:
        place = urlsplit(address)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=300)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._info = {"name": name, "host": name.rpartition("-")[0], "pid": os.getpid(), "device": "cpu"}
        self._epochs = epochs
        self._done = done
        self._random = random.Random(name)  # noqa: S311 - no secret

    def work(self, ends: float) -> None:
        """Run trials until the clock says `ends`, or the service has none."""
        while time.monotonic() < ends:
            lease = self._call("claim", "/v1/leases", {"worker": self._info, "lease_id": str(uuid4())})
            if lease is None:
                time.sleep(1.0)
                continue
            self._train(lease)

    def _train(self, lease: dict[str, Any]) -> None:
        path, fence = f"/v1/trials/{lease['trial_id']}", {"attempt": lease["attempt"], "lease_id": lease["lease_id"]}
        quality = self._random.uniform(0.3, 0.9)
        for step in range(1, self._epochs + 1):
            metrics = {"val_top1": quality * (1 - 0.8**step), "val_loss": 1.0}
            sent = {"step": step, "metrics": metrics, "wall_seconds": 60.0, "gpu_seconds": 60.0}
            answer = self._call("report", f"{path}/reports", {**fence, "measurements": [sent]})
            if answer is not None and answer["decision"] != "continue":
                self._call("finish", f"{path}/finish", {**fence, "outcome": "stopped", "metrics": metrics})
                return
        self._call("finish", f"{path}/finish", {**fence, "outcome": "completed", "metrics": metrics})

    def _call(self, kind: str, path: str, body: dict[str, Any]) -> Any:
        began = time.monotonic()
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        self._done.note(kind if answer.status == 200 else f"{kind}, answered {answer.status}", time.monotonic() - began)
        return json.loads(content) if answer.status == 200 else None


def main() -> None:
    """Run the load, or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("run", "report"))
    parser.add_argument("--folder", type=Path, default=Path(".scale"))
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--optimizers", type=int, default=1, help="That of `hpo serve` and further ones.")
    parser.add_argument("--seconds", type=float, default=3_600.0)
    parser.add_argument("--prefill", type=int, default=0, help="Trials of all studies that are made by SQL, completed.")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the service, too
    size = Size(studies=asked.studies, trials=asked.trials, epochs=asked.epochs, workers=asked.workers)
    with _postgres(asked.folder) as (url, pid):
        migrate(url)
        database = Database(url)
        try:
            if asked.part == "run":
                _fill(database, url, size, asked.prefill)
                _run(database, url, size, asked, postgres_pid=pid)
            _report(database, asked.folder, size)
        finally:
            database.close()


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, int | None]]:
    """Yield the address of the database, and the process of its server where that is ours."""
    folder.mkdir(exist_ok=True, mode=0o711)  # for root, Postgres runs as another user; what is in it is closed
    if given := os.environ.get("DATABASE_URL"):
        pid = os.environ.get("POSTGRES_PID")  # of a server on this machine, whose CPU is then counted too
        yield given, None if pid is None else int(pid)
        return
    with EmbeddedPostgres(folder.absolute() / "postgres", options=POSTGRES) as url:
        pid_file = next((folder / "postgres").rglob("postmaster.pid"))
        yield url, int(pid_file.read_text().splitlines()[0])


def _fill(database: Database, url: str, size: Size, prefill: int) -> None:
    """Make the studies that are missing, and the trials of an earlier life of the service."""
    with database.transaction() as connection:
        known = {study.name for study in store_studies.list_all(connection)}
    for number in range(size.studies):
        name = f"scale-{number:03}"
        if name in known:
            continue
        with database.transaction() as connection:
            study_id = store_studies.create(connection, parse_spec(_spec(name, number, size)), actor="benchmark").id
            share = prefill // size.studies
            if share:
                connection.execute(_PREFILL, {"study_id": study_id, "first": 0, "count": share, "epochs": size.epochs})
    with make_engine(url, pool_size=1).connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))


def _spec(name: str, number: int, size: Size) -> dict[str, Any]:
    return {
        "name": name,
        "objectives": [{"metric": "val_top1", "direction": "maximize"}],
        "task": {
            "dataset": {"name": "ucf101", "root": "/data/ucf101"},
            "epochs": size.epochs,
            "base": {"batch_size": 4},
        },
        "space": {
            "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        },
        "optimizer": {"name": "sobol" if number % MODELLED else "ax"},
        "early_stopping": {"name": ("none", "asha", "median")[number % 3]},
        "budget": {"trials": size.each},
    }


def _run(database: Database, url: str, size: Size, asked: argparse.Namespace, *, postgres_pid: int | None) -> None:
    home = asked.folder.absolute() / "home"
    home.mkdir(exist_ok=True, mode=0o700)
    with (
        server(url, home, "--processes", str(asked.processes)) as (address, token, pid),
        _further_optimizers(url, home, asked.optimizers - 1) as further,
    ):
        _print_idle(database, address, token, pid, postgres_pid)
        done, before = Done(), _cpu(pid, postgres_pid, further)
        wall, began = time.time(), time.monotonic()

        def record() -> None:
            used = {name: after - before.get(name, 0.0) for name, after in _cpu(pid, postgres_pid, further).items()}
            with done.lock:
                calls = dict(done.calls)
                waited = {kind: list(seconds) for kind, seconds in done.waited.items()}
            made = RunRecord(
                began=wall,
                seconds=time.monotonic() - began,
                workers=size.workers,
                processes=asked.processes,
                optimizers=asked.optimizers,
                load=os.getloadavg()[0],
                calls=calls,
                waited=scale_record.percentiles(waited),
                cpu=used,
            )
            scale_record.write(asked.folder, made)

        workers = [SyntheticWorker(address, token, f"host-{n}", size.epochs, done) for n in range(size.workers)]
        # They are left where they are when this program ends.
        threads = [threading.Thread(target=_work, args=(one, began + asked.seconds), daemon=True) for one in workers]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) and time.monotonic() < began + asked.seconds:
                time.sleep(min(RECORD_SECONDS, max(began + asked.seconds - time.monotonic(), 0.0)))
                record()
                if _is_over(database):
                    break
        except KeyboardInterrupt:
            print("interrupted; another run goes on from here")
        record()


def _is_over(database: Database) -> bool:
    """Return whether no study goes on."""
    with database.transaction() as connection:
        return not connection.execute(text("SELECT count(*) FROM study WHERE finished_at IS NULL")).scalar_one()


@contextmanager
def _further_optimizers(url: str, home: Path, count: int) -> Iterator[list[int]]:
    """Run `hpo optimizer` so many times, and yield the process ids."""
    command = [sys.executable, "-c", "from hpo.cli import main; main()", "--home", str(home), "optimizer"]
    environment = {**os.environ, "DATABASE_URL": url}
    with (home / "optimizers.log").open("ab") as log:
        processes = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()


def _work(worker: SyntheticWorker, ends: float) -> None:
    with suppress(OSError, http.client.HTTPException):  # the service ends before the last of a thousand is heard
        worker.work(ends)


def _cpu(server_pid: int, postgres_pid: int | None, further: Sequence[int] = ()) -> dict[str, float]:
    """Return the CPU seconds of the parts so far; `further` are optimizers beside that of the service."""
    below = [pid for pid in tree(server_pid) if pid != server_pid]
    optimizers = [pid for pid in below if b"optimizer" in _command_of(pid)]
    optimizer = sum(cpu_seconds(pid) for pid in optimizers)
    apart = sum(cpu_seconds(pid) for pid in further)
    found = {"the optimizer": optimizer + apart, "the API": cpu_seconds(server_pid) - optimizer}
    return found if postgres_pid is None else {**found, "Postgres": cpu_seconds(postgres_pid)}


def _command_of(pid: int) -> bytes:
    """Return the command line of a process; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _print_idle(database: Database, address: str, token: str, pid: int, postgres_pid: int | None) -> None:
    """Say what the service costs while nobody works, and what a look at all studies costs."""
    _settle(database)
    before, began = _cpu(pid, postgres_pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    took = time.monotonic() - began
    for name, after in _cpu(pid, postgres_pid).items():
        print(f"| idle: CPU of {name} | {100 * (after - before[name]) / took:.1f} % of a core |")
    for path in ("/metrics", "/v1/studies", "/", "/v1/workers", "/v1/health"):
        before, began = _cpu(pid, postgres_pid), time.monotonic()
        place = urlsplit(address)
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=300)
        for _ in range(5):
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            body = connection.getresponse().read()
        spent = {name: (after - before[name]) / 5 for name, after in _cpu(pid, postgres_pid).items()}
        costs = ", ".join(f"{name} {1000 * cpu:.0f} ms" for name, cpu in spent.items() if "optimizer" not in name)
        print(f"| GET {path} | {(time.monotonic() - began) / 5:.3f} s | {costs} | {len(body) / 1024:.0f} KiB |")
        connection.close()


def _settle(database: Database) -> None:
    """Wait until every study has a suggestion: the optimizer has seen all of them."""
    missing = text("""SELECT count(*) FROM study WHERE state = 'active' AND NOT EXISTS
                      (SELECT FROM trial WHERE study_id = study.id AND state = 'suggested')""")
    for _ in range(600):
        with database.transaction() as connection:
            if not connection.execute(missing).scalar_one():
                return
        time.sleep(1.0)


def _report(database: Database, folder: Path, size: Size) -> None:
    with database.transaction() as connection:
        ended = int(connection.execute(_ENDED).scalar_one())
        print("\n" + scale_record.result(scale_record.read(folder), ended=ended, trials=size.trials))
        _table(connection, "Tables", _TABLES)
        _table(connection, "Indexes", _INDEXES)
        has_statements = text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'")
        if connection.execute(has_statements).scalar_one():
            _table(connection, "Statements", _STATEMENTS)


def _table(connection: Connection, title: str, query: Any) -> None:
    rows = connection.execute(query).mappings().all()
    if not rows:
        return
    print(f"\n{title}\n\n| {' | '.join(rows[0].keys())} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
        cells = (f"{value:,.1f}" if isinstance(value, float) else str(value)[:160] for value in row.values())
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
