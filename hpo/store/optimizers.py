"""The optimizer processes that live: they share the studies among them, and people see what each does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from .notifications import Channel, announce

KEPT_SECONDS: Final = 60.0
"""For so long one that was not heard of any more stays in the table; it counts for nothing by then."""

_LOOK: Final = text("""
INSERT INTO optimizer AS known (owner, expires_at, steps, busy_seconds)
VALUES (:owner, clock_timestamp() + make_interval(secs => :seconds), :steps, :busy_seconds)
ON CONFLICT (owner) DO UPDATE
SET expires_at = excluded.expires_at, looked_at = clock_timestamp(), steps = excluded.steps,
    busy_seconds = excluded.busy_seconds
""")
_RENEW: Final = text("""
UPDATE optimizer SET expires_at = clock_timestamp() + make_interval(secs => :seconds) WHERE owner = :owner
""")
_REMOVE: Final = text("DELETE FROM optimizer WHERE owner = :owner")
_FORGET: Final = text("""
DELETE FROM optimizer WHERE owner IN (
    SELECT owner FROM optimizer WHERE expires_at < clock_timestamp() - make_interval(secs => :kept_seconds)
    FOR UPDATE SKIP LOCKED)
""")
_LIST: Final = text("""
SELECT optimizer.owner, optimizer.started_at, optimizer.steps, optimizer.busy_seconds,
       EXTRACT(epoch FROM clock_timestamp() - optimizer.looked_at)::float8 AS seconds_since_look,
       (SELECT count(*) FROM study
        WHERE generator_owner = optimizer.owner AND generator_expires_at > clock_timestamp()) AS studies
FROM optimizer WHERE expires_at > clock_timestamp() ORDER BY optimizer.owner
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRow:
    """An optimizer process that lives."""

    owner: str
    """Its host and process."""
    started_at: datetime
    seconds_since_look: float
    """Since it looked at all studies: while it fits a model it does not."""
    studies: int
    """How many it holds the lease of."""
    steps: int
    """How often it has made or changed suggestions."""
    busy_seconds: float
    """How long that took in all."""


def look(connection: Connection, owner: str, seconds: float, *, steps: int = 0, busy_seconds: float = 0.0) -> None:
    """Note that an optimizer lives for `seconds` at least, and looks at all studies now."""
    values = {"owner": owner, "seconds": seconds, "steps": steps, "busy_seconds": busy_seconds}
    connection.execute(_LOOK, values)


def renew(connection: Connection, owner: str, seconds: float) -> None:
    """Note that an optimizer lives still, though it may be busy with one study; forget those that are long gone."""
    connection.execute(_RENEW, {"owner": owner, "seconds": seconds})
    connection.execute(_FORGET, {"kept_seconds": KEPT_SECONDS})


def remove(connection: Connection, owner: str) -> None:
    """Note that an optimizer has ended, and tell the others, who take its studies."""
    connection.execute(_REMOVE, {"owner": owner})
    announce(connection, Channel.WANTED)


def list_alive(connection: Connection) -> list[OptimizerRow]:
    """List the optimizers that live, by name."""
    return [OptimizerRow(**row) for row in connection.execute(_LIST).mappings()]
