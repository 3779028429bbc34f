"""The append-only record of what happened and who did it; it feeds the live stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, insert, select, text, tuple_

from .tables import event
from .wire import later

_APPEND: Final = text("""
INSERT INTO event (study_id, trial_id, kind, actor, detail)
VALUES (:study_id, :trial_id, :kind, :actor, CAST(:detail AS jsonb))
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One thing that happened."""

    id: int
    study_id: int | None
    trial_id: int | None
    kind: str
    """Such as `study.paused` or `trial.claimed`."""
    actor: str
    detail: Mapping[str, Any]
    created_at: datetime


def append(  # noqa: PLR0917 - what, by whom, with what: the order in which one says it
    connection: Connection,
    study_id: int | None,
    trial_id: int | None,
    kind: str,
    actor: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Record an event in the transaction of what it describes."""
    row = {"study_id": study_id, "trial_id": trial_id, "kind": kind, "actor": actor}
    later(connection, _APPEND, {**row, "detail": json.dumps(dict(detail or {}))})


def append_all(
    connection: Connection, kind: str, actor: str, rows: Sequence[tuple[int, int | None, Mapping[str, Any]]]
) -> None:
    """Record one event per (study id, trial id, detail)."""
    if not rows:
        return
    values = [
        {"study_id": study_id, "trial_id": trial_id, "kind": kind, "actor": actor, "detail": dict(detail)}
        for study_id, trial_id, detail in rows
    ]
    connection.execute(insert(event), values)


def list_since(connection: Connection, study_id: int, after_id: int = 0, limit: int = 1000) -> list[EventRow]:
    """List the events of a study that follow event `after_id` in the stream (0: from the beginning).

    Pass the id of the last event received to continue. Ids do not always increase along the stream, but a reader that
    continues in this way misses none: events are ordered by transaction, and one is shown only when no transaction
    before its own can still commit.
    """
    place = tuple_(event.c.transaction_id, event.c.id)
    query = (
        select(event)
        .where(event.c.study_id == study_id)
        .where(event.c.transaction_id < text("pg_snapshot_xmin(pg_current_snapshot())"))
        .order_by(event.c.transaction_id, event.c.id)
        .limit(limit)
    )
    if after_id:
        cursor = select(event.c.transaction_id, event.c.id).where(event.c.id == after_id)
        query = query.where(place > cursor.scalar_subquery())
    columns = EventRow.__dataclass_fields__
    return [EventRow(**{name: row[name] for name in columns}) for row in connection.execute(query).mappings()]
