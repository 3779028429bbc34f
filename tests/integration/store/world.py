"""Small studies, suggestions, workers and leases to play with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from hpo.protocol import (
    ClaimRequest,
    FinishRequest,
    Lease,
    Measurement,
    ReleaseRequest,
    ReportRequest,
    WorkerInfo,
)
from hpo.service import finishing
from hpo.spec import StudySpec, parse_spec
from hpo.store import Database, lifecycle, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import VIDEO, Suggestion, TrialRecord

OWNER = "optimizer-1"


def make_spec(name: str = "study", **changes: Any) -> StudySpec:
    """Return the spec of a study over one parameter; `changes` replace whole sections."""
    raw: dict[str, Any] = {
        "name": name,
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": "/data"}, "epochs": 3},
        "space": {"lr": {"type": "float", "low": 1e-6, "high": 1.0}},
        "budget": {"trials": 100},
    }
    return parse_spec({**raw, **changes})


def suggestion(lr: float = 0.1) -> Suggestion:
    """Return a suggestion of a learning rate."""
    return Suggestion(params={"lr": lr}, generator="sobol")


def worker(name: str = "worker-1", *, memory_bytes: int | None = None, **fields: Any) -> WorkerInfo:
    """Return a CPU worker, by default on a host of its own."""
    return WorkerInfo(
        **{"name": name, "host": f"host of {name}", "pid": 1, "device": "cpu", "memory_bytes": memory_bytes, **fields}
    )


def make_study(database: Database, name: str = "study", **changes: Any) -> StudyRow:
    """Return a new study."""
    with database.transaction() as connection:
        return studies.create(connection, make_spec(name, **changes), actor="test")


def generator_is_alive(connection: Connection, study_id: int) -> bool:
    """Return whether an optimizer holds an unexpired lease on the study."""
    query = text("SELECT generator_expires_at > clock_timestamp() FROM study WHERE id = :id")
    return bool(connection.execute(query, {"id": study_id}).scalar_one())


def suggest(database: Database, study: StudyRow, count: int = 1) -> list[TrialRecord]:
    """Return new suggestions with different parameters, added under the generator lease of OWNER."""
    with database.transaction() as connection:
        generation = studies.acquire_generator(connection, study.id, OWNER, 3600)
        assert generation is not None
        proposed = [suggestion(0.001 * (1 + index)) for index in range(count)]
        return lifecycle.suggest(connection, study.id, proposed, owner=OWNER, generation=generation)


def claim(
    database: Database,
    study: StudyRow | None = None,
    *,
    lease_id: UUID | None = None,
    name: str = "worker-1",
    task_kinds: Sequence[str] = (VIDEO,),
    **fields: Any,
) -> Lease | None:
    """Return the lease of a claimed trial, if there was one, under a fresh lease id or the one given."""
    request = ClaimRequest(
        worker=worker(name, **fields),
        lease_id=lease_id or uuid4(),
        study=None if study is None else study.name,
        task_kinds=list(task_kinds),
    )
    with database.transaction() as connection:
        return lifecycle.claim(connection, request, lease_seconds=60)


def must_claim(database: Database, study: StudyRow | None = None, **options: Any) -> Lease:
    """Return the lease of a claimed trial where there must be one to claim."""
    lease = claim(database, study, **options)
    assert lease is not None
    return lease


def measurement(step: int, value: float = 0.5, gpu_seconds: float = 2.0) -> Measurement:
    """Return a measurement of the validation accuracy after `step` epochs."""
    return Measurement(step=step, metrics={"val_top1": value}, wall_seconds=3.0, gpu_seconds=gpu_seconds)


def report(database: Database, lease: Lease, *measurements: Measurement, **fields: Any) -> lifecycle.Reported:
    """Return the answer to a report under a lease."""
    request = ReportRequest(attempt=lease.attempt, lease_id=lease.lease_id, measurements=list(measurements), **fields)
    with database.transaction() as connection:
        return lifecycle.report(connection, lease.trial_id, request)


def finish(database: Database, lease: Lease, outcome: str = "completed", **fields: Any) -> TrialRecord:
    """Return the trial after its end under a lease, with an accuracy of 0.5 unless it failed."""
    if outcome != "failed":
        fields.setdefault("metrics", {"val_top1": 0.5})
    request = FinishRequest(attempt=lease.attempt, lease_id=lease.lease_id, outcome=outcome, **fields)  # type: ignore[arg-type]  # a literal
    with database.transaction() as connection:
        return lifecycle.finish(connection, lease.trial_id, request)


def release(database: Database, lease: Lease, reason: str, **fields: Any) -> None:
    """Give a trial back."""
    request = ReleaseRequest(attempt=lease.attempt, lease_id=lease.lease_id, reason=reason, **fields)  # type: ignore[arg-type]  # a literal
    with database.transaction() as connection:
        lifecycle.release(connection, lease.trial_id, request)


def reap(database: Database) -> list[int]:
    """Return the ids of the trials that are taken back because their leases have expired."""
    with database.transaction() as connection:
        return lifecycle.reap(connection)


def end_finished_studies(database: Database) -> list[str]:
    """Return the names of the studies that are ended because they are finished."""
    return finishing.end_finished_studies(database)


def record(database: Database, trial_id: int) -> TrialRecord:
    """Return a trial."""
    with database.transaction() as connection:
        return trials.record(connection, trial_id)


def study_row(database: Database, name: str = "study") -> StudyRow:
    """Return a study."""
    with database.transaction() as connection:
        return studies.get(connection, name)


def expire(database: Database, trial_id: int) -> None:
    """Let the lease of a trial expire without waiting."""
    run(database, "UPDATE trial SET lease_expires_at = clock_timestamp() - interval '1 s' WHERE id = :id", id=trial_id)


def skip_backoff(database: Database, trial_id: int) -> None:
    """Let the wait before a retry be over."""
    run(database, "UPDATE trial SET not_before = NULL WHERE id = :id", id=trial_id)


def run(database: Database, statement: str, **values: Any) -> None:
    """Execute a statement in a transaction of its own."""
    with database.transaction() as connection:
        connection.execute(text(statement), values)


def scalar(connection: Connection, statement: str, **values: Any) -> Any:
    """Return the one value that a statement selects."""
    return connection.execute(text(statement), values).scalar_one()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """An optimizer process and a generation that it was once given."""

    name: str
    generation: int


def until_somebody_waits(connection: Connection) -> None:
    """Return once another transaction waits for a lock, which this one holds."""
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + 30
    while not connection.execute(waits).scalar_one():
        assert time.monotonic() < deadline, "nobody waits for the row"
