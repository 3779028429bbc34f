"""The workers that have been heard of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from ..protocol import WorkerInfo
from .tables import NOW, trial, worker

ALIVE_SECONDS: Final = 60.0
"""A worker that was heard of within this time may ask for a trial soon."""


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
    """The trial that it holds a lease on."""


def seen(connection: Connection, info: WorkerInfo, *, study: str | None = None) -> None:
    """Note that a worker has just been heard of."""
    values = {**info.model_dump(), "study": study}
    statement = insert(worker).values(values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[worker.c.name], set_={**values, "last_seen": NOW})
    )


def touch(connection: Connection, name: str) -> None:
    """Note that a worker known by `name` has just been heard of."""
    connection.execute(update(worker).where(worker.c.name == name).values(last_seen=NOW))


def list_all(connection: Connection) -> list[WorkerRow]:
    """List all workers, the latest heard of first."""
    held = (
        select(func.max(trial.c.id))
        .where(trial.c.lease_worker == worker.c.name, trial.c.state == "running")
        .scalar_subquery()
    )
    age = func.extract("epoch", text("clock_timestamp()") - worker.c.last_seen)
    query = select(worker, held.label("trial_id"), age.label("seconds_since_seen")).order_by(
        worker.c.last_seen.desc(), worker.c.name
    )
    columns = WorkerRow.__dataclass_fields__
    return [
        WorkerRow(**{**{name: row[name] for name in columns}, "seconds_since_seen": float(row["seconds_since_seen"])})
        for row in connection.execute(query).mappings()
    ]
