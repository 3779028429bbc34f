"""The workers that have been heard of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from ..protocol import WorkerInfo
from ..spec import StudySpec
from ..spec.tasks import DEFAULT_KIND
from .quarantine_times import RESTART_SECONDS
from .wire import later

ALIVE_SECONDS: Final = 60.0
"""A worker that was heard of within this time may ask for a trial soon."""
TOUCH_SECONDS: Final = 5.0
"""When a worker was heard of is written at most this often while it reports."""

# In a container every process may have the same number, and workers up to release 0.2.0 have no start id.
_SEEN: Final = text("""
INSERT INTO worker AS known (name, host, pid, device, gpu_name, memory_bytes, version, start_id, study,
                             task_kinds, gpus, nodes)
VALUES (:name, :host, :pid, :device, :gpu_name, :memory_bytes, :version, :start_id, :study,
        CAST(:task_kinds AS text[]), :gpus, :nodes)
ON CONFLICT (name) DO UPDATE
SET host = excluded.host, pid = excluded.pid, device = excluded.device, gpu_name = excluded.gpu_name,
    memory_bytes = excluded.memory_bytes, version = excluded.version, start_id = excluded.start_id,
    study = excluded.study, task_kinds = excluded.task_kinds, gpus = excluded.gpus,
    nodes = excluded.nodes,
    last_seen = clock_timestamp(),
    quarantined_until = CASE
        WHEN (known.pid <> excluded.pid OR known.start_id IS DISTINCT FROM excluded.start_id)
             AND known.faulted_at < clock_timestamp() - make_interval(secs => :restart_seconds)
             AND known.quarantined_at IS NOT NULL THEN clock_timestamp()
        ELSE known.quarantined_until
    END,
    cleared_at = CASE
        WHEN (known.pid <> excluded.pid OR known.start_id IS DISTINCT FROM excluded.start_id)
             AND NOT EXISTS (SELECT FROM attempt
                             WHERE attempt.worker = known.name AND attempt.fault IS NOT NULL
                               AND attempt.ended_at >= clock_timestamp() - make_interval(secs => :restart_seconds))
        THEN clock_timestamp()
        ELSE known.cleared_at
    END
""")
_TOUCH: Final = text("""
UPDATE worker SET last_seen = clock_timestamp()
WHERE name = :name AND last_seen < clock_timestamp() - make_interval(secs => :touch_seconds)
""")
_LIST: Final = text("""
SELECT worker.*, extract(epoch FROM clock_timestamp() - worker.last_seen) AS seconds_since_seen,
       held.id AS trial_id, held.number AS trial_number, study.name AS trial_study, study.id AS trial_study_id,
       attempt.progress, attempt.progress_at,
       sick.fault AS host_fault, sick.fault_message AS host_fault_message,
       sick.quarantined_at AS host_quarantined_at, sick.quarantined_until AS host_quarantined_until
FROM worker
LEFT JOIN (SELECT DISTINCT ON (lease_worker) lease_worker, id, number, study_id, attempt FROM trial
           WHERE state = 'running'
           ORDER BY lease_worker, id DESC) AS held ON held.lease_worker = worker.name
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
    task_kinds: Sequence[str]
    """The kinds of task whose trials it runs."""
    gpus: int
    """How many a trial may have there, on each of its machines."""
    nodes: int
    """Machines of the group that it leads; 1 where it is alone."""
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

    def takes(self, spec: StudySpec) -> bool:
        """Return whether it asks for trials of a study, and has the GPUs for them."""
        is_asked = self.study in (None, spec.name) and spec.task.kind in self.task_kinds
        return is_asked and self.gpus >= spec.gpus and self.nodes == spec.nodes


def seen(
    connection: Connection,
    info: WorkerInfo,
    *,
    study: str | None = None,
    task_kinds: Sequence[str] = (DEFAULT_KIND,),
) -> None:
    """Note that a worker has just been heard of.

    If it was started again it may try a trial although it is in quarantine, and have trials of studies whose files it
    missed; but not at once after a fault, since it has hardly been repaired by then.
    """
    later(
        connection,
        _SEEN,
        {**info.model_dump(), "study": study, "task_kinds": list(task_kinds), "restart_seconds": RESTART_SECONDS},
    )


def touch(connection: Connection, name: str) -> None:
    """Note that a worker known by `name` has just been heard of, to the precision of `TOUCH_SECONDS`."""
    later(connection, _TOUCH, {"name": name, "touch_seconds": TOUCH_SECONDS})


def list_all(connection: Connection) -> list[WorkerRow]:
    """List all workers, the latest heard of first."""
    columns = WorkerRow.__dataclass_fields__
    return [
        WorkerRow(**{**{name: row[name] for name in columns}, "seconds_since_seen": float(row["seconds_since_seen"])})
        for row in connection.execute(_LIST).mappings()
    ]
