"""Measure the service at scale, beside Optuna's RDB storage on the same Postgres: `make bench-service`.

Prints the Markdown tables of docs/benchmarks.md. Studies are made by INSERT ... SELECT FROM generate_series; calls of
workers then go through the functions of the API's routes (CPU of the calling thread) or over HTTP to `hpo serve` (CPU
of its processes, from /proc). Asserts nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sqlalchemy import text

import benchmarks.service_load as load
from api.config import ApiConfig
from api.state import ApiState
from api.v1 import leases, studies, trials
from benchmarks import service_pages
from hpo.protocol import ClaimRequest, FinishRequest, Lease, Measurement, ReleaseRequest, ReportRequest, WorkerInfo
from hpo.service.fallback import Fallback
from hpo.spec import parse_spec
from hpo.store import Database, EmbeddedPostgres, lifecycle, marks, migrate
from hpo.store import studies as store_studies
from hpo.store.database import make_engine
from hpo.trial import Suggestion

EPOCHS = 30
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
"""How long clients keep calling."""
RULES: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "median": {"name": "median"},
    "percentile": {"name": "percentile", "percentile": 25},
    "asha": {"name": "asha"},
    "hyperband": {"name": "hyperband"},
    "curves": {"name": "curves"},
    "asha, pause": {"name": "asha", "pause": True},
    "curves, pause": {"name": "curves", "pause": True},
    "patient": {"name": "patient"},
    "threshold": {"name": "threshold", "lower": 0.0},
}
ANYONE = cast(Any, SimpleNamespace(token_id=None))
"""Who calls: the routes take it for granted once the gate has let a call through."""
POSTGRES = {"max_connections": "200", "shared_buffers": "512MB"}

_TRIALS = text("""
INSERT INTO trial (study_id, number, params, generator, state, held, attempt, lease_id, lease_worker, started_at,
                   finished_at, metrics, epochs_done, gpu_seconds)
SELECT :study_id, number, jsonb_build_object('lr', 0.0001 + 0.00001 * number, 'dropout', 0.5), 'sobol', :state,
       :state = 'paused', 1, NULL, 'worker-' || number % 32, clock_timestamp(),
       CASE WHEN :state = 'completed' THEN clock_timestamp() END,
       CASE WHEN :state = 'completed' THEN jsonb_build_object('val_top1', 0.5) END, :epochs, :epochs
FROM generate_series(0, :trials - 1) AS number
""")
_MEASUREMENTS = text("""
INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
SELECT trial.id, 1, step,
       jsonb_build_object('val_top1', round((0.3 + 0.6 * (hashint4(trial.number) & 65535) / 65536.0
                                             * (1 - exp(-step / 8.0))
                                             + 0.01 * (hashint4(trial.number * 64 + step) & 255) / 256.0
                                             )::numeric, 4), 'val_loss', 1.0),
       1.0, 1.0
FROM trial, generate_series(1, :epochs) AS step
WHERE trial.study_id = :study_id
""")
_METRICS = text("""
UPDATE trial SET metrics = measurement.metrics FROM measurement
WHERE trial.study_id = :study_id AND measurement.trial_id = trial.id AND measurement.step = :epochs
  AND trial.state = 'completed'
""")
_ATTEMPTS = text("""
INSERT INTO attempt (trial_id, attempt, worker, claimed_at, seen_at, ended_at, ended_as)
SELECT id, 1, lease_worker, started_at, clock_timestamp(), clock_timestamp(), state FROM trial
WHERE study_id = :study_id
""")
_COUNTS = text("UPDATE study SET next_number = :trials, live_trials = :trials WHERE id = :study_id")


def main() -> None:
    """Run the requested parts."""
    parts: dict[str, Callable[[str], None]] = {
        "reports": bench_reports,
        "promotions": bench_promotions,
        "reads": bench_reads,
        "pages": bench_pages,
        "clients": bench_clients,
        "workers": bench_workers,
        "processes": bench_processes,
        "waits": bench_waits,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="which to run; all without a name")
    names = parser.parse_args().parts or list(parts)
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f} before the run")
    for name in names:
        with _postgres() as url:
            parts[name](url)


def bench_reports(url: str) -> None:
    """Print what the reports of one trial cost in the API, by rule and number of trials."""
    rows = []
    for rule in os.environ.get("BENCH_RULES", "none median asha hyperband curves").split():
        cells = [rule]
        for count in _sizes(100, 1_000, 3_000, 30_000):
            with _study(url, rule, count) as (state, study_id):
                cells.append(_report_cost(state, study_id))
        rows.append(cells)
    columns = ["rule", *(f"{count} trials" for count in _sizes(100, 1_000, 3_000, 30_000))]
    _print("A report: CPU ms in the API, mean of a trial's 29 (longest)", columns, rows)


def bench_promotions(url: str) -> None:
    """Print what the end of a trial costs where paused trials may be promoted, in that study and in another."""
    rows = []
    for rule in ("asha, pause", "curves, pause"):
        for count in _sizes(600, 3_000):
            with _study(url, rule, count, state="paused", epochs=3) as (state, study_id):
                other = _new_study(state.database, "none")
                rows.append(
                    [rule, f"{count} paused", _pause_cost(state, study_id), f"{_finish_cost(state, other):.1f}"]
                )
    columns = ["rule", "trials", "a pause and its promotions: CPU ms", "a finish in another study: CPU ms"]
    _print("Promotions", columns, rows)


def bench_reads(url: str) -> None:
    """Print what people read: pages of trials, curves, the study."""
    rows = []
    for count in _sizes(3_000, 10_000):
        with _study(url, "median", count) as (state, _):
            reads: dict[str, Callable[[], object]] = {
                "page of 500 trials": partial(trials.list_trials, state, ANYONE, "bench", None, count // 2, 500),
                "curves": partial(trials.list_curves, state, ANYONE, "bench", None, None),
                "curves, 10 points of each": partial(trials.list_curves, state, ANYONE, "bench", None, 10),
                "study": partial(studies.get_study, state, ANYONE, "bench"),
            }
            for what, read in reads.items():
                first, *later = (_cost(read) for _ in range(4))
                wall, cpu = zip(*later, strict=True)
                times = (first[0], statistics.median(wall), statistics.median(cpu))
                rows.append([what, str(count), *(f"{1000 * seconds:.0f}" for seconds in times)])
    _print("Reading", ["what", "trials", "first time: wall ms", "wall ms", "CPU ms of the API"], rows)


def bench_pages(url: str) -> None:
    """Print what the pages cost and send, and what importing 5,000 results costs."""
    rows = []
    for count in _sizes(2_000, 10_000):
        with _study(url, "median", count) as (state, study_id):
            for what, make in service_pages.pages(state, study_id, count):
                sizes: list[int] = []
                first = _cost(partial(_kept, make, sizes))
                service_pages.wait_for_answers()
                wall, cpu = zip(*(_cost(partial(_kept, make, sizes)) for _ in range(3)), strict=True)
                times = (*first, statistics.median(wall), statistics.median(cpu))
                rows.append([what, f"{count:,}", *(f"{1000 * one:.0f}" for one in times), f"{sizes[-1] / 1000:,.0f}"])
    columns = ["what", "trials", "first: wall ms", "first: CPU ms", "again: wall ms", "again: CPU ms", "kB"]
    _print("Pages: the API's thread, without HTTP", columns, rows)
    with _study(url, "median", 0) as (state, _):
        steps = [
            [what, *(f"{seconds:.2f}" for seconds in _cost(step))]
            for what, step in service_pages.import_steps(state, service_pages.table(5_000))
        ]
    _print("Importing 5,000 results", ["step", "wall s", "CPU s of the API's thread"], steps)


def bench_clients(url: str) -> None:
    """Print how many lives of trials a second clients get done, over HTTP and with Optuna's RDB storage."""
    rows = []
    beside = _database_for_optuna(url)
    for clients in (1, 8, 64):
        with _study(url, "none", 0) as (state, study_id):
            _suggest(state, study_id, 6000)
            with _home() as home, load.server(url, home, "--no-optimizer") as (address, token, pid):
                ours = load.run(
                    partial(load.http_trial, address, token, "bench"),
                    clients,
                    SECONDS,
                    server_pid=pid,
                    postgres_pid=_postgres_pid(state.database),
                )
            name = f"optuna-{uuid4()}"
            load.new_optuna_study(beside, name)
            theirs = load.run(
                partial(load.optuna_trial, beside, name),
                clients,
                SECONDS,
                server_pid=None,
                postgres_pid=_postgres_pid(state.database),
            )
        rows.append(
            [
                str(clients),
                f"{ours.per_second:.0f} ({ours.server_cpu_ms:.1f} + {ours.postgres_cpu_ms:.1f})",
                f"{theirs.per_second:.0f} ({theirs.postgres_cpu_ms:.1f})",
                f"{ours.per_second / theirs.per_second:.1f}",
            ]
        )
    columns = ["clients", "ours: trials/s (CPU ms of API + Postgres)", "Optuna RDB: trials/s (Postgres)", "ratio"]
    _print("claim, 3 reports, finish", columns, rows)


def bench_workers(url: str) -> None:
    """Print the reports a second of 32 workers in a study of many trials."""
    rows = []
    for rule, count in (("median", 3_000), ("asha", 3_000)):
        with _study(url, rule, count) as (state, study_id):
            _suggest(state, study_id, 2000)
            with _home() as home, load.server(url, home, "--no-optimizer") as (address, token, pid):
                found = load.run(
                    partial(load.http_trial, address, token, "bench", reports=EPOCHS - 1),
                    32,
                    SECONDS,
                    server_pid=pid,
                    postgres_pid=_postgres_pid(state.database),
                )
        reports = found.trials * (EPOCHS - 1) / found.seconds
        rows.append([rule, str(count), f"{reports:.0f}", f"{found.peak_mib:.0f}"])
    _print("32 workers", ["rule", "trials before", "reports/s", "peak memory of the API, MiB"], rows)


def bench_processes(url: str) -> None:
    """Print what one and two processes of the API get done for 64 clients."""
    rows = []
    for count in (1, 2):
        with _study(url, "none", 0) as (state, study_id):
            _suggest(state, study_id, 6000)
            options = ("--no-optimizer", "--processes", str(count))
            with _home() as home, load.server(url, home, *options) as (address, token, pid):
                done = load.run(
                    partial(load.http_trial, address, token, "bench"),
                    64,
                    SECONDS,
                    server_pid=pid,
                    postgres_pid=_postgres_pid(state.database),
                )
        rows.append([str(count), f"{done.per_second:.0f} ({done.server_cpu_ms:.1f} + {done.postgres_cpu_ms:.1f})"])
    _print("Processes of the API", ["processes", "trials/s (CPU ms of API + Postgres)"], rows)


def bench_waits(url: str) -> None:
    """Print how long a worker that waits is without a trial, where a suggestion needs no fit."""
    rows = []
    for others in (0, 40):
        with _study(url, "none", 0) as (state, _):
            for place in range(others):
                _new_study(state.database, "none", f"idle-{place}")
            with _home() as home, load.server(url, home) as (address, token, _):
                waits = load.waits(address, token, "bench", trials=20)
        rows.append([str(others), f"{1000 * statistics.median(waits):.0f}", f"{1000 * max(waits):.0f}"])
    _print("A claim of the only worker, after its result", ["idle studies beside", "median, ms", "longest, ms"], rows)


def _kept(make: Callable[[], int], sizes: list[int]) -> None:
    sizes.append(make())


def _suggest(state: ApiState, study_id: int, count: int) -> None:
    with state.database.transaction() as connection:
        generation = store_studies.acquire_generator(connection, study_id, "bench", 3600)
        if generation is None:
            raise RuntimeError("another optimizer serves the study")
        found = [
            Suggestion(params={"lr": 0.001 + 1e-5 * place, "dropout": 0.1}, generator="sobol") for place in range(count)
        ]
        lifecycle.suggest(connection, study_id, found, owner="bench", generation=generation)


def _database_for_optuna(url: str) -> str:
    """Return a new database on the same server: both programs keep a table of the same name."""
    engine = make_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS optuna WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE optuna"))
    engine.dispose()
    return engine.url.set(database="optuna").render_as_string(hide_password=False)


def _vacuum(url: str) -> None:
    """Do what Postgres does by itself within a minute or two of so many changes."""
    engine = make_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def _postgres_pid(database: Database) -> int:
    """Return the process id of the server, which runs on this machine."""
    with database.transaction() as connection:
        folder = connection.execute(text("SHOW data_directory")).scalar_one()
    return int((Path(folder) / "postmaster.pid").read_text().split()[0])


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as folder:
        yield Path(folder)


def _report_cost(state: ApiState, study_id: int) -> str:
    lease = _claimed(state, study_id)
    costs = []
    for step in range(1, EPOCHS):
        value = 0.3 + 0.2 * (1 - math.exp(-step / 8))  # in the middle of the study: the rule has to look closely
        costs.append(1000 * _cost(partial(_report, state, lease, step, value))[1])
    return f"{statistics.fmean(costs):.1f} ({max(costs):.1f})"


def _pause_cost(state: ApiState, study_id: int) -> str:
    costs = []
    for _ in range(5):
        lease = _claimed(state, study_id)
        for step in range(1, 4):
            _report(state, lease, step, 0.1)
        body = ReleaseRequest(attempt=lease.attempt, lease_id=lease.lease_id, reason="paused")
        costs.append(_cost(partial(leases._release, ANYONE, lease.trial_id, body, None, state.database)))
    wall, cpu = (1000 * statistics.median(c) for c in zip(*costs, strict=True))
    return f"{cpu:.1f} (wall {wall:.1f})"


def _finish_cost(state: ApiState, study_id: int) -> float:
    costs = []
    for _ in range(5):
        lease = _claimed(state, study_id)
        fence: dict[str, Any] = {"attempt": lease.attempt, "lease_id": lease.lease_id}
        body = FinishRequest(**fence, outcome="completed", metrics={"val_top1": 0.5})
        costs.append(_cost(partial(leases._finish, ANYONE, lease.trial_id, body, None, state.database))[1])
    return 1000 * statistics.median(costs)


def _report(state: ApiState, lease: Lease, step: int, value: float) -> None:
    sent = Measurement(step=step, metrics={"val_top1": value, "val_loss": 1.0}, wall_seconds=1.0, gpu_seconds=1.0)
    body = ReportRequest(attempt=lease.attempt, lease_id=lease.lease_id, measurements=[sent])
    leases._report(state, ANYONE, lease.trial_id, body, None, state.database)


def _cost(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of this thread."""
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - wall, time.thread_time() - cpu


def _claimed(state: ApiState, study_id: int) -> Lease:
    with state.database.transaction() as connection:
        generation = store_studies.acquire_generator(connection, study_id, "bench", 3600)
        if generation is None:
            raise RuntimeError("another optimizer serves the study")
        found = Suggestion(params={"lr": 0.01, "dropout": 0.1}, generator="sobol")
        lifecycle.suggest(connection, study_id, [found], owner="bench", generation=generation)
        name = store_studies.get_by_id(connection, study_id).name
        worker = WorkerInfo(name="bench", host="here", pid=1, device="cpu")
        lease = lifecycle.claim(
            connection, ClaimRequest(worker=worker, lease_id=uuid4(), study=name), lease_seconds=3600
        )
    if lease is None:
        raise RuntimeError("there was no trial to claim")
    return lease


def _new_study(database: Database, rule: str, name: str = "other") -> int:
    raw = {
        "name": name,
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": "/data"}, "epochs": EPOCHS},
        "space": {
            "lr": {"type": "float", "low": 1e-5, "high": 1.0},
            "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        },
        "budget": {"trials": 100_000},
        "early_stopping": RULES[rule],
        "optimizer": {"name": "sobol"},  # no fit: what is measured is the service
    }
    with database.transaction() as connection:
        return store_studies.create(connection, parse_spec(raw), actor="bench").id


@contextmanager
def _study(
    url: str, rule: str, count: int, *, state: str = "completed", epochs: int = EPOCHS
) -> Iterator[tuple[ApiState, int]]:
    """Yield a study of `count` trials with all their epochs, alone in the database."""
    database = Database(url)
    try:
        with database.transaction() as connection:
            connection.execute(text("TRUNCATE study, worker CASCADE"))
        study_id = _new_study(database, rule, "bench")
        with database.transaction() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("UPDATE study SET marked = false"))
            values = {"study_id": study_id, "trials": count, "epochs": epochs, "state": state}
            for statement in (_TRIALS, _MEASUREMENTS, _METRICS, _ATTEMPTS, _COUNTS):
                connection.execute(statement, values)
        with database.transaction() as connection:
            marks.complete(connection, study_id)
        _vacuum(url)
        fallback = Fallback(after_seconds=3600.0)
        yield (
            ApiState(
                database=database,
                lane=cast(Any, None),  # the functions behind the routes do not know of it
                config=ApiConfig(key=b"0" * 32),
                fallback=fallback,
                logins=cast(Any, None),
            ),
            study_id,
        )
    finally:
        database.close()


@contextmanager
def _postgres() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="hpo-bench-"))
    try:
        with EmbeddedPostgres(folder, options=POSTGRES) as url:
            migrate(url)
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sizes(*sizes: int) -> list[int]:
    most = int(os.environ.get("BENCH_TRIALS", "30000"))
    return [size for size in sizes if size <= most]


def _print(title: str, columns: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n")
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
