"""The workers that have been heard of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, case, exists, func, or_, text, update
from sqlalchemy.dialects.postgresql import insert

from ..protocol import WorkerInfo
from .quarantine_times import RESTART_SECONDS
from .tables import NOW, attempt, worker

ALIVE_SECONDS: Final = 60.0
"""A worker that was heard of within this time may ask for a trial soon."""
TOUCH_SECONDS: Final = 5.0
"""When a worker was heard of is written at most this often while it reports."""

_LIST: Final = text("""
SELECT worker.*, extract(epoch FROM clock_timestamp() - worker.last_seen) AS seconds_since_seen,
       held.id AS trial_id, held.number AS trial_number, study.name AS trial_study, study.id AS trial_study_id,
       attempt.progress, attempt.progress_at,
       sick.fault AS host_fault, sick.fault_message AS host_fault_message,
       sick.quarantined_at AS host_quarantined_at, sick.quarantined_until AS host_quarantined_until
FROM worker
LEFT JOIN LATERAL (SELECT id, number, study_id, attempt FROM trial
                   WHERE trial.lease_worker = worker.name AND trial.state = 'running'
                   ORDER BY id DESC LIMIT 1) AS held ON true
LEFT JOIN study ON study.id = held.study_id
LEFT JOIN attempt ON attempt.trial_id = held.id AND attempt.attempt = held.attempt
LEFT JOIN host_quarantine AS sick ON sick.host = worker.host
ORDER BY worker.last_seen DESC, worker.name
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker: what it said of itself, when it was last heard of, and what it runs."""

    name: str
    host: str
    pid: int
    device: str
    gpu_name: str | None
    memory_bytes: int | None
    version: str
    study: str | None
    """The one study that it asks for; None when it takes any."""
    first_seen: datetime
    last_seen: datetime
    seconds_since_seen: float
    trial_id: int | None
    """The trial that it holds a lease on, which is number `trial_number` of the study `trial_study`."""
    trial_study: str | None
    trial_study_id: int | None
    trial_number: int | None
    progress: Mapping[str, Any] | None
    """How far that is, as the worker said at `progress_at`."""
    progress_at: datetime | None
    faults: int
    """Faults since it last trained an epoch."""
    fault: str | None
    """The last one of them, of `hpo.trial.Fault`."""
    fault_message: str | None
    faulted_at: datetime | None
    quarantined_at: datetime | None
    quarantined_until: datetime | None
    """When it may try a trial again."""
    host_fault: str | None
    """The fault for which its host is in quarantine; None if it is not, as are the following."""
    host_fault_message: str | None
    host_quarantined_at: datetime | None
    host_quarantined_until: datetime | None


def seen(connection: Connection, info: WorkerInfo, *, study: str | None = None) -> None:
    """Note that a worker has just been heard of.

    If it was started again it may try a trial although it is in quarantine, and have trials of studies whose files it
    missed; but not at once after a fault, since it has hardly been repaired by then.
    """
    values = {**info.model_dump(), "study": study}
    statement = insert(worker).values(values)
    # In a container every process may have the same number, and workers up to release 0.2.0 have no start id.
    is_new = or_(
        worker.c.pid != statement.excluded.pid, worker.c.start_id.is_distinct_from(statement.excluded.start_id)
    )
    just = NOW - func.make_interval(0, 0, 0, 0, 0, 0, RESTART_SECONDS)
    may_try = is_new & (worker.c.faulted_at < just) & worker.c.quarantined_at.is_not(None)
    has_failed = exists().where(
        attempt.c.worker == worker.c.name, attempt.c.fault.is_not(None), attempt.c.ended_at >= just
    )
    changed = {
        "last_seen": NOW,
        "quarantined_until": case((may_try, NOW), else_=worker.c.quarantined_until),
        "cleared_at": case((is_new & ~has_failed, NOW), else_=worker.c.cleared_at),
    }
    connection.execute(statement.on_conflict_do_update(index_elements=[worker.c.name], set_={**values, **changed}))


def touch(connection: Connection, name: str) -> None:
    """Note that a worker known by `name` has just been heard of, to the precision of `TOUCH_SECONDS`."""
    before = NOW - func.make_interval(0, 0, 0, 0, 0, 0, TOUCH_SECONDS)
    connection.execute(update(worker).where(worker.c.name == name, worker.c.last_seen < before).values(last_seen=NOW))


def list_all(connection: Connection) -> list[WorkerRow]:
    """List all workers, the latest heard of first."""
    columns = WorkerRow.__dataclass_fields__
    return [
        WorkerRow(**{**{name: row[name] for name in columns}, "seconds_since_seen": float(row["seconds_since_seen"])})
        for row in connection.execute(_LIST).mappings()
    ]
