"""The ends of the logs of attempts, in the parts in which workers sent them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from ..errors import NotFoundError, StaleLeaseError
from ..protocol import LOG_KEPT_BYTES, LogRequest
from ..trial import TrialRecord

_OWNER: Final = text("""
SELECT attempt = :attempt AND lease_id = CAST(:lease_id AS uuid)
    AND (lease_token IS NULL OR lease_token = CAST(:token AS bigint)) AS is_owner
FROM trial WHERE id = :trial_id
FOR KEY SHARE
""")
_APPEND: Final = text("""
INSERT INTO log_part (trial_id, attempt, start, stop, text)
SELECT :trial_id, :attempt, :start, :stop, :text
WHERE NOT EXISTS (SELECT FROM log_part WHERE trial_id = :trial_id AND attempt = :attempt AND stop > :start)
ON CONFLICT DO NOTHING
""")
_FORGET: Final = text("""
DELETE FROM log_part WHERE trial_id = :trial_id AND attempt = :attempt AND stop <= :stop - :kept
""")
_ATTEMPT: Final = text("""
SELECT attempt, worker, ended_as FROM attempt WHERE trial_id = :trial_id AND attempt = :attempt
""")
_PARTS: Final = text("""
SELECT start, stop, text FROM log_part
WHERE trial_id = :trial_id AND attempt = :attempt AND start >= :after
ORDER BY start
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLog:
    """What is kept of the log of one attempt, or of its part after a place."""

    attempt: int
    worker: str
    ended_as: str | None
    """How the attempt ended; None while it runs."""
    start: int
    """Where the text begins in the log, in bytes."""
    stop: int
    """Where it ends: what to ask for later parts with."""
    text: str


def append(connection: Connection, trial_id: int, request: LogRequest, *, token: int | None = None) -> None:
    """Keep a part of a log, once, and forget what lies `LOG_KEPT_BYTES` before its end.

    Only what lies behind everything that is kept is added: a repeat changes nothing, and parts that overlap, or come
    from the end to the beginning, do not make more of a log than it may have.

    Raises:
        StaleLeaseError: the trial has another owner now.
        NotFoundError: there is no such trial.
    """
    fence = {"trial_id": trial_id, "attempt": request.attempt}
    is_owner = connection.execute(_OWNER, {**fence, "lease_id": str(request.lease_id), "token": token}).one_or_none()
    if is_owner is None:
        raise NotFoundError(f"there is no trial {trial_id}; its study was probably deleted")
    if not is_owner.is_owner:
        raise StaleLeaseError()
    connection.execute(_APPEND, {**fence, "start": request.start, "stop": request.stop, "text": request.text})
    connection.execute(_FORGET, {**fence, "stop": request.stop, "kept": LOG_KEPT_BYTES})


def read(connection: Connection, trial: TrialRecord, *, attempt: int | None = None, after: int = 0) -> AttemptLog:
    """Return what is kept of the log of an attempt (the last one if none is given) from the place `after` on.

    Raises:
        NotFoundError: the trial has no such attempt.
    """
    wanted = {"trial_id": trial.id, "attempt": trial.attempt if attempt is None else attempt}
    about = connection.execute(_ATTEMPT, wanted).one_or_none()
    if about is None:
        known = f"it has {trial.attempt}" if trial.attempt else "no worker has claimed it yet"
        raise NotFoundError(f"trial {trial.number} has no attempt {wanted['attempt'] or 1}: {known}")
    parts = connection.execute(_PARTS, {**wanted, "after": after}).all()
    return AttemptLog(
        attempt=about.attempt,
        worker=about.worker,
        ended_as=about.ended_as,
        start=parts[0].start if parts else after,
        stop=parts[-1].stop if parts else after,
        text="".join(part.text for part in parts),
    )
