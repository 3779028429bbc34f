"""Hosts of which several workers fail where those of others do not: a full disk, a missing folder, a broken driver.

Such a host is in quarantine: its other workers would fail too, so none of them gets a trial. After some time one may
have one, to show that the host is well; an epoch that any of its workers trains ends the quarantine, and so does a
person. Its time doubles with every further fault.

A claim locks the row of a host before that of a worker, every other call after it. So nobody waits for a host: who
finds its row locked leaves it as it is.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from ..protocol import WorkerInfo
from ..trial import Fault
from . import events
from .quarantine_times import FIRST_SECONDS, LONGEST_SECONDS, RESTART_SECONDS, seconds_after
from .wire import later

LEAST_WORKERS: Final = 2
"""Workers of one host in quarantine for the same fault that put their host into quarantine."""

_OF_WORKER: Final = text("""
SELECT sick.host, sick.faults, sick.fault
FROM host_quarantine AS sick JOIN worker ON worker.host = sick.host
WHERE worker.name = :name
FOR NO KEY UPDATE OF sick SKIP LOCKED
""")
_WAIT: Final = text("""
UPDATE host_quarantine SET quarantined_until = clock_timestamp() + make_interval(secs => :seconds) WHERE host = :host
""")
_COUNT: Final = text("""
UPDATE host_quarantine SET faults = faults + 1, faulted_at = clock_timestamp() WHERE host = :host
""")
# A host that has trained an epoch since the faults began is well, and a fault that others have too is not the host's.
_BEGIN: Final = text("""
WITH sick AS (
    SELECT mine.host, count(*) AS workers, max(other.faulty_since) AS since
    FROM worker AS mine
    JOIN worker AS other ON other.host = mine.host AND other.quarantined_at IS NOT NULL AND other.fault = :fault
         AND other.faulted_at > clock_timestamp() - make_interval(secs => :window)
    WHERE mine.name = :name
    GROUP BY mine.host
), begun AS (
    INSERT INTO host_quarantine (host, fault, fault_message, quarantined_until)
    SELECT sick.host, :fault, :message, clock_timestamp() + make_interval(secs => :seconds)
    FROM sick
    WHERE sick.workers >= :least
      AND NOT EXISTS (SELECT FROM host_quarantine AS known WHERE known.host = sick.host)
      AND NOT EXISTS (SELECT FROM attempt
                      JOIN worker AS well ON well.name = attempt.worker
                      JOIN measurement USING (trial_id, attempt)
                      WHERE well.host = sick.host AND attempt.seen_at > sick.since
                        AND measurement.created_at > sick.since)
      AND NOT EXISTS (SELECT FROM attempt
                      JOIN worker AS other ON other.name = attempt.worker
                      WHERE other.host <> sick.host AND attempt.fault = :fault
                        AND attempt.ended_at > sick.since - make_interval(secs => :window))
    ON CONFLICT (host) DO NOTHING
    RETURNING host
)
SELECT begun.host, sick.workers FROM begun JOIN sick ON sick.host = begun.host
""")
_DELETE: Final = text("DELETE FROM host_quarantine WHERE host = :host")
_WORKERS_MAY_TRY: Final = text("""
UPDATE worker
SET quarantined_until = clock_timestamp()
WHERE name IN (SELECT name FROM worker WHERE host = :host AND fault = :fault AND quarantined_at IS NOT NULL
               FOR NO KEY UPDATE SKIP LOCKED)
""")
_STARTED_AGAIN: Final = text("""
UPDATE host_quarantine
SET quarantined_until = clock_timestamp()
WHERE host = (SELECT host FROM host_quarantine
              WHERE host = :host AND faulted_at < clock_timestamp() - make_interval(secs => :seconds)
              FOR NO KEY UPDATE SKIP LOCKED)
  AND EXISTS (SELECT FROM worker
              WHERE worker.name = :name AND (worker.pid <> :pid OR worker.start_id IS DISTINCT FROM :start_id))
""")
_TAKE: Final = text("""
SELECT host FROM host_quarantine WHERE host = :host AND quarantined_until <= clock_timestamp()
FOR NO KEY UPDATE SKIP LOCKED
""")
_SHUT: Final = text("""
SELECT sick.host, sick.fault, sick.fault_message
FROM host_quarantine AS sick JOIN worker ON worker.host = sick.host
WHERE worker.name = :name AND sick.quarantined_until > clock_timestamp()
""")


def note_fault(connection: Connection, name: str) -> None:
    """Let the host of a worker that has failed wait longer, if it is in quarantine."""
    row = connection.execute(_OF_WORKER, {"name": name}).one_or_none()
    if row is not None:
        connection.execute(_COUNT, {"host": row.host})
        connection.execute(_WAIT, {"host": row.host, "seconds": seconds_after(row.faults + 1)})


def begin(connection: Connection, name: str, fault: Fault, message: str | None, *, study_id: int) -> None:
    """Put the host of a worker in quarantine into it too, if others there fail alike and those elsewhere do not."""
    values = {"name": name, "fault": fault, "message": message, "seconds": FIRST_SECONDS}
    row = connection.execute(_BEGIN, {**values, "least": LEAST_WORKERS, "window": LONGEST_SECONDS}).one_or_none()
    if row is not None:
        detail = {"fault": fault, "message": message, "workers": row.workers}
        events.append(connection, study_id, None, "host.quarantined", row.host, detail)


def note_progress(connection: Connection, name: str, *, study_id: int) -> None:
    """End the quarantine of the host of a worker that has trained an epoch; those that failed there may try again."""
    row = connection.execute(_OF_WORKER, {"name": name}).one_or_none()
    if row is not None:
        connection.execute(_DELETE, {"host": row.host})
        connection.execute(_WORKERS_MAY_TRY, {"host": row.host, "fault": row.fault})
        detail = {"reason": f"{name} trained an epoch"}
        events.append(connection, study_id, None, "host.released", row.host, detail)


def note_end(connection: Connection, name: str, *, failed: bool) -> None:
    """Let another worker of the host try a trial: the one that this worker had is over, without a fault or an epoch."""
    row = connection.execute(_OF_WORKER, {"name": name}).one_or_none()
    if row is not None:
        connection.execute(_WAIT, {"host": row.host, "seconds": seconds_after(row.faults) if failed else 0.0})


def end(connection: Connection, host: str) -> bool:
    """End the quarantine of a host and return whether it was in one."""
    return connection.execute(_DELETE, {"host": host}).rowcount > 0


def may_try(connection: Connection, info: WorkerInfo) -> bool:
    """Return whether a worker of a host in quarantine may have a trial because the host's time is over.

    Until the end of the transaction no other worker of the host may.
    """
    host = {"host": info.host}
    started = {"name": info.name, "pid": info.pid, "start_id": info.start_id, "seconds": RESTART_SECONDS}
    connection.execute(_STARTED_AGAIN, {**host, **started})
    return connection.execute(_TAKE, host).one_or_none() is not None


def note_trial(connection: Connection, host: str) -> None:
    """Give a host in quarantine no second trial before it has trained an epoch of the first."""
    later(connection, _WAIT, {"host": host, "seconds": LONGEST_SECONDS})


def shut_for(connection: Connection, name: str) -> tuple[str, Fault, str | None] | None:
    """Return host, fault and message where the host of a worker keeps it from having a trial at the moment."""
    row = connection.execute(_SHUT, {"name": name}).one_or_none()
    return None if row is None else (row.host, Fault(row.fault), row.fault_message)
