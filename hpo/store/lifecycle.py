"""Move trials through their lives. The statements are in `lifecycle.sql`; this gives them arguments and errors.

No function commits. What a worker does is fenced by (trial, attempt, lease id); what an optimizer does, by the
generation of its lease on the study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, text

from ..errors import NotFoundError, StaleLeaseError
from ..protocol import ClaimRequest, Fence, FinishRequest, Lease, ReleaseRequest, ReportRequest
from ..trial import ENQUEUED, FailureKind, StudyState, Suggestion, TrialRecord, TrialState
from . import events, trials, workers
from .statements import execute
from .study_row import get_by_id
from .study_state import lock_of_trial, pause_after_invalid

BACKOFF_SECONDS: Final = 15.0
"""Wait before the first retry, one heartbeat long so that a living worker can come back; doubles each time."""
BACKOFF_LIMIT_SECONDS: Final = 600.0
HEARTBEATS_PER_LEASE: Final = 4
INVALID_IN_A_ROW: Final = 3
"""A study is paused after this many invalid trials one after another."""

_ONE_AT_A_TIME: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:lease_id, 0))")
_HELD: Final = text("SELECT id FROM trial WHERE lease_id = CAST(:lease_id AS uuid)")
_EXISTS: Final = text("SELECT id FROM trial WHERE id = :id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a report brought about, and what its decision depends on."""

    study_id: int
    study_state: StudyState
    """`stopped` also when the budget of the study is used up and what runs should end."""
    cancel: bool
    new_steps: list[int]
    """The steps that had not been reported before in this attempt."""


def suggest(
    connection: Connection, study_id: int, suggestions: Sequence[Suggestion], *, owner: str, generation: int
) -> list[TrialRecord]:
    """Add suggestions, as many as the budget has room for; none when `generation` of `owner` is not current."""
    proposed = [{"params": dict(suggestion.params), **_about(suggestion)} for suggestion in suggestions]
    added = execute(
        connection,
        "suggest",
        study_id=study_id,
        owner=owner,
        generation=generation,
        wanted=len(proposed),
        suggestions=_json(proposed),
    )
    records = trials.by_ids(connection, [int(row.id) for row in added])
    details = [(study_id, record.id, {"number": record.number, "generator": record.generator}) for record in records]
    events.append_all(connection, "trial.suggested", owner, details)
    return records


def replace_suggestion(
    connection: Connection, trial_id: int, suggestion: Suggestion, *, owner: str, generation: int
) -> bool:
    """Give an unclaimed suggestion new parameters; return False if it was claimed or the generation is not current."""
    row = execute(
        connection,
        "replace_suggestion",
        trial_id=trial_id,
        owner=owner,
        generation=generation,
        params=_json(dict(suggestion.params)),
        **_about(suggestion),
    ).one_or_none()
    if row is None:
        return False
    details = {"old_params": row.old_params, "generator": suggestion.generator}
    events.append(connection, row.study_id, trial_id, "trial.replaced", owner, details)
    return True


def _about(suggestion: Suggestion) -> dict[str, Any]:
    """Return the columns that say where a suggestion comes from and what is expected of it."""
    return {
        "generator": suggestion.generator,
        "priority": int(suggestion.generator == ENQUEUED),
        "predicted_mean": suggestion.predicted_mean,
        "predicted_sd": suggestion.predicted_sd,
        "predicted_feasibility": suggestion.predicted_feasibility,
        "required_memory_bytes": suggestion.required_memory_bytes,
    }


def withdraw(connection: Connection, study_id: int, *, actor: str) -> int:
    """Withdraw the suggestions that nobody has claimed yet; return their number."""
    return _move(connection, "withdraw", "trial.withdrawn", study_id, actor=actor)


def close(connection: Connection, study_id: int, *, actor: str) -> int:
    """Stop the trials of an ended study that had begun and wait for a worker; return their number."""
    return _move(connection, "close", "trial.stopped", study_id, actor=actor)


def promote(connection: Connection, study_id: int, trial_ids: Sequence[int], *, actor: str) -> int:
    """Let trials that the stopping rule had paused be claimed again; return how many were paused until now."""
    return _move(connection, "promote", "trial.promoted", study_id, actor=actor, trial_ids=list(trial_ids))


def close_held(connection: Connection, study_id: int, *, actor: str) -> int:
    """Stop the trials that the stopping rule paused, once nothing else of the study is open; return their number."""
    return _move(connection, "close_held", "trial.stopped", study_id, actor=actor)


def _move(connection: Connection, statement: str, kind: str, study_id: int, *, actor: str, **values: Any) -> int:
    """Move trials of a study by a statement, record an event of `kind` for each, and return their number."""
    moved = [int(row.id) for row in execute(connection, statement, study_id=study_id, **values)]
    events.append_all(connection, kind, actor, [(study_id, trial_id, {}) for trial_id in moved])
    return len(moved)


def claim(connection: Connection, request: ClaimRequest, *, lease_seconds: float) -> Lease | None:
    """Give the asking worker a trial, the same one again for a lease id that holds one; None when none fits.

    Raises:
        StaleLeaseError: this lease id was used and its lease is over; a new claim needs a new id.
    """
    lease = {"lease_id": str(request.lease_id), "lease_seconds": lease_seconds}
    # The same request may arrive twice at once: the second waits here and then finds the lease of the first.
    connection.execute(_ONE_AT_A_TIME, lease)
    row = execute(connection, "reclaim", **lease).mappings().one_or_none()
    if row is None:
        if connection.execute(_HELD, lease).first() is not None:
            raise StaleLeaseError("this lease is over; claim with a new lease id")
        who = {"worker": request.worker.name, "memory_bytes": request.worker.memory_bytes}
        row = execute(connection, "claim", study=request.study, **who, **lease).mappings().one_or_none()
        if row is None:
            workers.seen(connection, request.worker, study=request.study)
            return None
        detail = {"attempt": row["attempt"], "lease_id": str(request.lease_id)}
        events.append(connection, row["study_id"], row["id"], "trial.claimed", request.worker.name, detail)
    # After the trial, as in a report: two calls of one worker must not wait for each other crosswise.
    workers.seen(connection, request.worker, study=request.study)
    return _lease(connection, row, request, lease_seconds)


def _lease(connection: Connection, row: RowMapping, request: ClaimRequest, lease_seconds: float) -> Lease:
    study = get_by_id(connection, row["study_id"])
    return Lease(
        study=study.name,
        study_id=study.id,
        trial_id=row["id"],
        number=row["number"],
        attempt=row["attempt"],
        lease_id=request.lease_id,
        params=row["params"],
        config=study.spec.trial_config(row["params"], number=row["number"]),
        task=study.spec.task,
        checkpoint=row["checkpoint"],
        epochs_done=row["epochs_done"],
        lease_seconds=lease_seconds,
        heartbeat_seconds=lease_seconds / HEARTBEATS_PER_LEASE,
    )


def report(connection: Connection, trial_id: int, request: ReportRequest) -> Reported:
    """Renew the lease and keep the measurements; what was sent before is not counted again.

    Raises:
        StaleLeaseError: the trial has another owner now, or is over.
        NotFoundError: there is no such trial.
    """
    sent = [measurement.model_dump() for measurement in request.measurements]
    row = execute(
        connection,
        "report",
        **_fence(trial_id, request),
        measurements=_json(sent),
        checkpoint=request.checkpoint,
        peak_memory_bytes=request.peak_memory_bytes,
    ).one_or_none()
    if row is None:
        raise _stale(connection, trial_id)
    workers.touch(connection, row.lease_worker)
    for measurement in request.measurements:
        if measurement.step in row.new_steps:
            detail = {"attempt": request.attempt, "step": measurement.step, "metrics": measurement.metrics}
            events.append(connection, row.study_id, trial_id, "trial.measured", row.lease_worker, detail)
    return Reported(
        study_id=row.study_id,
        study_state=StudyState(row.study_state),
        cancel=row.cancel_requested,
        new_steps=list(row.new_steps),
    )


def finish(connection: Connection, trial_id: int, request: FinishRequest) -> TrialRecord:
    """Accept the result of a trial, once; the same result sent again under the same lease is confirmed.

    Raises:
        StaleLeaseError: the trial has another owner now, or is over with another result.
        NotFoundError: there is no such trial.
    """
    failed = request.outcome == "failed"
    kind = (request.failure_kind or FailureKind.ERROR) if failed else None
    if kind is FailureKind.INVALID:
        # Invalid results of one study come one after another, so that exactly the third in a row pauses it.
        lock_of_trial(connection, trial_id)
    result = {
        **_fence(trial_id, request),
        "outcome": request.outcome,
        "metrics": _json(request.metrics),
        "failure_kind": kind,
    }
    row = execute(
        connection,
        "finish",
        **result,
        failure_message=request.failure_message if failed else None,
        checkpoint=request.checkpoint,
        dataset_version=request.dataset_version,
        environment=_json(request.environment),
        peak_memory_bytes=request.peak_memory_bytes,
    ).one_or_none()
    if row is None:
        if execute(connection, "accepted", **result).first() is None:
            raise _stale(connection, trial_id)
        return trials.record(connection, trial_id)
    workers.touch(connection, row.lease_worker)
    detail = {"attempt": request.attempt, "metrics": request.metrics, "failure_kind": kind}
    events.append(connection, row.study_id, trial_id, f"trial.{row.state}", row.lease_worker, detail)
    if row.state == TrialState.FAILED and kind is FailureKind.INVALID:
        pause_after_invalid(connection, row.study_id, in_a_row=INVALID_IN_A_ROW)
    return trials.record(connection, trial_id)


def release(connection: Connection, trial_id: int, request: ReleaseRequest) -> None:
    """Take an unfinished trial back from its worker.

    Raises:
        StaleLeaseError: the trial has another owner now, or is over.
        NotFoundError: there is no such trial.
    """
    row = execute(
        connection,
        "release",
        **_fence(trial_id, request),
        reason=request.reason,
        message=request.message,
        checkpoint=request.checkpoint,
        **_backoff(),
    ).one_or_none()
    if row is None:
        raise _stale(connection, trial_id)
    workers.touch(connection, row.lease_worker)
    detail = {"attempt": request.attempt, "reason": request.reason, "state": row.state, "retries": row.retries}
    events.append(connection, row.study_id, trial_id, "trial.released", row.lease_worker, detail)


def reap(connection: Connection) -> list[int]:
    """Take back the trials whose leases have expired; return their ids. Any number of callers may do it at once."""
    rows = execute(connection, "reap", **_backoff()).all()
    details = [
        (row.study_id, row.id, {"worker": row.lease_worker, "state": row.state, "retries": row.retries}) for row in rows
    ]
    events.append_all(connection, "trial.expired", "reaper", details)
    return [int(row.id) for row in rows]


def cancel(connection: Connection, trial_id: int, *, actor: str) -> TrialState:
    """End a trial early, at once when it waits; the worker of a running one learns of it with its next heartbeat.

    Raises:
        NotFoundError: there is no such trial.
    """
    row = execute(connection, "cancel", trial_id=trial_id).one_or_none()
    if row is None:
        return trials.record(connection, trial_id).state
    events.append(connection, row.study_id, trial_id, "trial.cancelled", actor, {"state": row.state})
    return TrialState(row.state)


def _fence(trial_id: int, request: Fence) -> dict[str, Any]:
    return {"trial_id": trial_id, "attempt": request.attempt, "lease_id": str(request.lease_id)}


def _backoff() -> dict[str, float]:
    return {"backoff_seconds": BACKOFF_SECONDS, "backoff_limit_seconds": BACKOFF_LIMIT_SECONDS}


def _stale(connection: Connection, trial_id: int) -> StaleLeaseError | NotFoundError:
    if connection.execute(_EXISTS, {"id": trial_id}).first() is None:
        return NotFoundError(f"there is no trial {trial_id}; its study was probably deleted")
    return StaleLeaseError()


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(value, allow_nan=False)
