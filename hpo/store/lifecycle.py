"""Move trials through their lives. The statements are in `lifecycle.sql`; this gives them arguments and errors.

No function commits. What a worker does is fenced by (trial, attempt, lease id), and by the token that claimed; what an
optimizer does, by the generation of its lease on the study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, text

from ..errors import AuthenticationError, ConflictError, NotFoundError, StaleLeaseError, UnusableStudyError
from ..protocol import ClaimRequest, Fence, FinishRequest, Lease, ReleaseRequest, ReportRequest
from ..trial import (
    ENQUEUED,
    MACHINE_FAULTS,
    REPLICATE,
    FailureKind,
    Fault,
    StudyState,
    Suggestion,
    TrialRecord,
    TrialState,
)
from . import confusions, events, host_quarantine, marks, plausible, quarantine, tokens, trials, weights, workers
from .notifications import Channel, announce
from .statements import execute
from .study_row import outline_from
from .study_state import lock_of_trial, pause_after_invalid, pause_without_files
from .usage import HEARTBEATS_PER_LEASE
from .wire import later

BACKOFF_SECONDS: Final = 15.0
"""Wait before the first retry, one heartbeat long so that a living worker can come back; doubles each time."""
BACKOFF_LIMIT_SECONDS: Final = 600.0
LOOKS: Final = (32, 512, None)
"""So many of the first waiting trials a claim looks at: first as many as are claimed at the same time, at last all."""
AVOID_SECONDS: Final = 3600.0
"""For so long a trial is not given again to a worker that failed with it, while another worker could have it."""
MOST_FAULTS: Final = 8
"""A trial has failed after this many faults of machines that completed other trials since."""
TRIED_SECONDS: Final = 24 * 3600.0
"""A trial that met only faults of machines, on several hosts, is lost after more than `MOST_FAULTS` and this time."""
LARGE_SECONDS: Final = 600.0
"""A trial waits for a worker with as much memory as it needs, if one was heard of within this time."""
LARGER_SECONDS: Final = 3600.0
"""A trial of which a single clip did not fit waits so long for a worker with more memory when there is none."""
INVALID_IN_A_ROW: Final = 3
"""A study is paused after this many invalid trials one after another."""

_ONE_AT_A_TIME: Final = text("""
SELECT pg_advisory_xact_lock(hashtextextended(:lease_id, 0)),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true)
""")
"""Also has all that a claim looks at found by an index and in its order. What the planner believes of the few rows that
are needed of many is seldom true: it sorted whole queues, and read new tables from end to end."""
_OWN: Final = text("""
SELECT id FROM trial
WHERE id = :trial_id AND attempt = :attempt AND lease_id = CAST(:lease_id AS uuid)
FOR NO KEY UPDATE
""")
"""Locks the trial in a statement of its own: the one that waits does not see what it has waited for."""
_EXISTS: Final = text("SELECT id FROM trial WHERE id = :id")
_TRAINED_AGAIN: Final = text("""
SELECT again.number FROM trial JOIN trial AS again ON again.study_id = trial.study_id AND again.replicate_of = :number
WHERE trial.id = :trial_id AND again.state <> 'withdrawn'
ORDER BY again.number
""")
_MESSAGE_CHARACTERS: Final = 300
"""What of a failure's message is in its event: of the first line. The trial keeps all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a report brought about, and what its decision depends on."""

    study_id: int
    study_state: StudyState
    """`stopped` also when the budget of the study is used up and what runs should end."""
    cancel: bool
    has_hours: bool
    """Whether the budget of the study has a limit of hours, which this report may have reached."""
    new_steps: list[int]
    """The steps that had not been reported before in this attempt."""
    rule: str
    """The name of the stopping rule of the study."""
    worker: str | None = None
    """The name of the worker that has the trial."""
    own: marks.Own | None = None
    """The trial as the stopping rule sees it; None where it was not read."""


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
    if records:
        announce(connection, Channel.TRIALS)
    details = [(study_id, record.id, {"number": record.number, "generator": record.generator}) for record in records]
    events.append_all(connection, "trial.suggested", owner, details)
    return records


def replicate(
    connection: Connection, study_id: int, number: int, *, generator: str, actor: str, next_number: int | None = None
) -> TrialRecord | None:
    """Add a trial that trains the configuration of trial `number` again with a seed of its own.

    `next_number` is the number that it must get where it follows from what the caller has read. None is returned where
    another trial has that number by now, where the study has ended, or where trial `number` was never claimed.
    """
    row = execute(
        connection,
        "replicate",
        study_id=study_id,
        number=number,
        generator=generator,
        priority=int(generator == REPLICATE),
        next_number=next_number,
    ).one_or_none()
    if row is None:
        return None
    announce(connection, Channel.TRIALS)
    record = trials.record(connection, row.id)
    detail = {"number": record.number, "generator": generator, "replicate_of": record.replicate_of}
    events.append(connection, study_id, record.id, "trial.suggested", actor, detail)
    return record


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


def close_held(connection: Connection, study_id: int, *, is_used_up: bool = False, actor: str) -> int:
    """Stop the trials that the stopping rule paused, once nothing else of the study is open; return their number.

    `is_used_up` says that the study gets no more trials although its budget has room: its space is used up.
    """
    return _move(connection, "close_held", "trial.stopped", study_id, actor=actor, is_used_up=is_used_up)


def _move(connection: Connection, statement: str, kind: str, study_id: int, *, actor: str, **values: Any) -> int:
    """Move trials of a study by a statement, record an event of `kind` for each, and return their number."""
    moved = [int(row.id) for row in execute(connection, statement, study_id=study_id, **values)]
    if kind == "trial.stopped":
        marks.refresh(connection, moved)
    elif kind == "trial.promoted" and moved:
        announce(connection, Channel.TRIALS)
    events.append_all(connection, kind, actor, [(study_id, trial_id, {}) for trial_id in moved])
    return len(moved)


def claim(
    connection: Connection, request: ClaimRequest, *, lease_seconds: float, token: int | None = None
) -> Lease | None:
    """Give the asking worker a trial, the same one again for a lease id that holds one; None when none fits.

    `token` is the id of the token that asks: later calls about the trial need the same one.

    Raises:
        StaleLeaseError: this lease id was used and its lease is over; a new claim needs a new id.
        AuthenticationError: the token is not valid any more.
        UnusableStudyError: no worker can be told what the next trial is; nothing must be committed.
    """
    values = _claim_values(request, lease_seconds, token)
    # The same request may arrive twice at once: the second waits here and then finds the lease of the first.
    later(connection, _ONE_AT_A_TIME, {"lease_id": values["lease_id"]})
    row = _claimed(connection, request, values)
    is_new = row is not None
    if row is None:
        asked = _only(values, "lease_id", "worker", "host", "token")
        standing = execute(connection, "standing", **asked).one()
        if not standing.is_token_valid:
            raise AuthenticationError
        is_new = not standing.is_used
        if standing.is_used:
            row = _reclaimed(connection, values)
        elif standing.is_host_shut and not standing.is_worker_shut:
            row = _trial_of_sick_host(connection, request, values)
    if row is not None and is_new:
        detail = {"attempt": row["attempt"]}  # without the lease id: events are for everyone who may read
        events.append(connection, row["study_id"], row["id"], "trial.claimed", request.worker.name, detail)
    if row is None:
        announce(connection, Channel.WANTED)
    # After the trial, as in a report: two calls of one worker must not wait for each other crosswise.
    workers.seen(connection, request.worker, study=request.study, task_kinds=request.task_kinds)
    return None if row is None else _lease(connection, row, request, lease_seconds)


def _claimed(connection: Connection, request: ClaimRequest, values: Mapping[str, Any]) -> RowMapping | None:
    """Claim the first trial that fits, looking at more and more of those that wait; None if there is none."""
    for near in LOOKS:
        row = _looked(connection, values, near=near, is_trial_run=False)
        if row is None or row["id"] is not None or not row["is_partial"]:
            break
    if row is None or row["id"] is None:
        return None
    if row["was_in_quarantine"]:
        quarantine.note_trial(connection, request.worker)
    return row


def _looked(
    connection: Connection, values: Mapping[str, Any], *, near: int | None, is_trial_run: bool
) -> RowMapping | None:
    """Return the row of a claim: without an id where it found no trial; None where it may have none."""
    return execute(connection, "claim", **values, near=near, is_trial_run=is_trial_run).mappings().one_or_none()


def _claim_values(request: ClaimRequest, lease_seconds: float, token: int | None) -> dict[str, Any]:
    return {
        "lease_id": str(request.lease_id),
        "lease_seconds": lease_seconds,
        "token": token,
        "study": request.study,
        "task_kinds": request.task_kinds,
        "worker": request.worker.name,
        "host": request.worker.host,
        "memory_bytes": request.worker.memory_bytes,
        "gpus": request.worker.gpus,
        "nodes": request.worker.nodes,
        "avoid_seconds": AVOID_SECONDS,
        "alive_seconds": workers.ALIVE_SECONDS,
        "large_seconds": LARGE_SECONDS,
    }


def _reclaimed(connection: Connection, values: Mapping[str, Any]) -> RowMapping:
    lease = _only(values, "lease_id", "lease_seconds", "token")
    row = execute(connection, "reclaim", **lease).mappings().one_or_none()
    if row is None:
        raise StaleLeaseError("this lease is over; claim with a new lease id")
    return row


def _trial_of_sick_host(connection: Connection, request: ClaimRequest, values: Mapping[str, Any]) -> RowMapping | None:
    """Claim a trial for a worker whose host is in quarantine, if that may show now that it is well."""
    if not host_quarantine.may_try(connection, request.worker):
        return None
    row = _looked(connection, values, near=None, is_trial_run=True)
    if row is None or row["id"] is None:
        return None
    quarantine.note_trial(connection, request.worker)
    return row


def _only(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names}


def _lease(connection: Connection, row: RowMapping, request: ClaimRequest, lease_seconds: float) -> Lease:
    study = outline_from(row["study_id"], row["study"], row["uuid"], row["spec"])
    try:
        config = study.spec.trial_config(
            row["params"], number=row["number"], is_replicate=row["replicate_of"] is not None
        )
    except Exception as error:  # whatever a spec of another release raises
        message = f"trial {row['number']} has no configuration: {type(error).__name__}: {error}"
        raise UnusableStudyError(message, study_id=study.id) from error
    names_weights = any(key == "weights" or key.startswith("weights.") for key in config)
    return Lease(
        study=study.name,
        study_id=study.id,
        study_uuid=study.uuid,
        trial_id=row["id"],
        number=row["number"],
        attempt=row["attempt"],
        lease_id=request.lease_id,
        params=row["params"],
        config=config,
        task=study.spec.task,
        checkpoints=study.spec.checkpoints,
        # Workers up to release 0.2.0, which have one GPU, refuse the field.
        resources=study.spec.resources if study.spec.ranks > 1 else None,
        measures=study.spec.measures,
        checkpoint=row["checkpoint"],
        epochs_done=row["epochs_done"],
        lease_seconds=lease_seconds,
        heartbeat_seconds=lease_seconds / HEARTBEATS_PER_LEASE,
        weights=weights.digests(connection, study.id) if names_weights else {},
    )


def report(connection: Connection, trial_id: int, request: ReportRequest, *, token: int | None = None) -> Reported:
    """Renew the lease and keep the measurements; what was sent before is not counted again.

    Raises:
        StaleLeaseError: the trial has another owner now, or is over.
        NotFoundError: there is no such trial.
        AuthenticationError: the token is not valid any more.
        ConflictError: its weights are not those that other trials of the study started from.
        ReportError: it cannot have measured this.
    """
    sent = [measurement.model_dump() for measurement in request.measurements]
    loaded = [one.model_dump() for one in request.weights]
    is_news = bool(loaded) and weights.check(connection, trial_id, request.weights)
    _await_earlier(connection, trial_id, request)
    row = execute(
        connection,
        "report",
        **_fence(trial_id, request, token),
        measurements=_json(sent),
        checkpoint=request.checkpoint,
        dataset_version=request.dataset_version,
        peak_memory_bytes=request.peak_memory_bytes,
        weights=_json(loaded) if loaded else None,
        progress=None if request.progress is None else _json(request.progress.model_dump(exclude_none=True)),
        touch_seconds=workers.TOUCH_SECONDS,
    ).one_or_none()
    if row is None:
        raise _stale(connection, trial_id, token)
    plausible.check(row.spec, measurements=request.measurements)
    if row.is_touched:
        workers.touch(connection, row.lease_worker)
    if row.new_steps and row.is_suspect:
        quarantine.note_progress(connection, row.lease_worker, study_id=row.study_id)
    confusions.keep(connection, trial_id, request.confusion, attempt=request.attempt)
    if is_news:
        detail = {"attempt": request.attempt, "weights": loaded}
        events.append(connection, row.study_id, trial_id, "trial.weights", row.lease_worker, detail)
    for measurement in request.measurements:
        if measurement.step in row.new_steps:
            detail = {"attempt": request.attempt, "step": measurement.step, "metrics": measurement.metrics}
            events.append(connection, row.study_id, trial_id, "trial.measured", row.lease_worker, detail)
    return Reported(
        study_id=row.study_id,
        study_state=StudyState(row.study_state),
        cancel=row.cancel_requested,
        has_hours=row.has_hours,
        new_steps=list(row.new_steps),
        rule=row.rule,
        worker=row.lease_worker,
        own=marks.keep(connection, row._mapping) if row.curve is not None else None,
    )


def finish(connection: Connection, trial_id: int, request: FinishRequest, *, token: int | None = None) -> TrialRecord:
    """Accept the result of a trial, once; the same result sent again under the same lease is confirmed.

    A trial that did not fit into the memory of its worker is not over where another one has more: it waits for that.

    Raises:
        StaleLeaseError: the trial has another owner now, or is over with another result.
        NotFoundError: there is no such trial.
        AuthenticationError: the token is not valid any more.
        ReportError: it cannot have measured this.
    """
    failed = request.outcome == "failed"
    kind = (request.failure_kind or FailureKind.ERROR) if failed else None
    if kind is FailureKind.INVALID:
        # Invalid results of one study come one after another, so that exactly the third in a row pauses it.
        lock_of_trial(connection, trial_id)
    if kind is FailureKind.OOM and _reroute(connection, trial_id, request, token):
        return trials.record(connection, trial_id)
    result = {
        **_fence(trial_id, request, token),
        "outcome": request.outcome,
        "metrics": _json(request.metrics),
        "failure_kind": kind,
    }
    _await_earlier(connection, trial_id, request)
    row = execute(
        connection,
        "finish",
        **result,
        failure_message=request.failure_message if failed else None,
        checkpoint=request.checkpoint,
        dataset_version=request.dataset_version,
        environment=_json(request.environment),
        peak_memory_bytes=request.peak_memory_bytes,
        touch_seconds=workers.TOUCH_SECONDS,
    ).one_or_none()
    if row is None:
        _require(connection, token)
        if execute(connection, "accepted", **result).first() is None:
            raise _stale(connection, trial_id, token)
        return trials.record(connection, trial_id)
    plausible.check(row.spec, metrics=request.metrics)
    confusions.keep(connection, trial_id, request.confusion, attempt=request.attempt)
    if row.state != TrialState.FAILED and row.rule not in (None, "none"):
        marks.keep(connection, row._mapping)
    if row.is_touched:
        workers.touch(connection, row.lease_worker)
    if row.is_suspect:
        quarantine.note_end(connection, row.lease_worker, failed=failed)
    detail = {"attempt": request.attempt, "metrics": request.metrics, "failure_kind": kind}
    if failed and request.failure_message:
        detail["message"] = request.failure_message.strip().partition("\n")[0][:_MESSAGE_CHARACTERS]
    events.append(connection, row.study_id, trial_id, f"trial.{row.state}", row.lease_worker, detail)
    if row.state == TrialState.FAILED and kind is FailureKind.INVALID:
        pause_after_invalid(connection, row.study_id, in_a_row=INVALID_IN_A_ROW)
    return trials.from_row(row._mapping)


def _reroute(connection: Connection, trial_id: int, request: FinishRequest, token: int | None) -> bool:
    """Have a trial wait for a worker with more memory than its present one, and return whether there is one."""
    fence, alive = _fence(trial_id, request, token), workers.ALIVE_SECONDS
    row = execute(connection, "reroute", **fence, alive_seconds=alive).one_or_none()
    if row is None:
        return False
    workers.touch(connection, row.lease_worker)
    quarantine.note_end(connection, row.lease_worker, failed=True)
    announce(connection, Channel.TRIALS)
    detail = {"attempt": request.attempt, "reason": "oom", "state": TrialState.SUGGESTED, "retries": row.retries}
    about = {"required_memory_bytes": row.required_memory_bytes, "message": _first_line(request.failure_message)}
    events.append(connection, row.study_id, trial_id, "trial.released", row.lease_worker, {**detail, **about})
    return True


def release(connection: Connection, trial_id: int, request: ReleaseRequest, *, token: int | None = None) -> None:
    """Take an unfinished trial back from its worker.

    Raises:
        StaleLeaseError: the trial has another owner now, or is over.
        NotFoundError: there is no such trial.
        AuthenticationError: the token is not valid any more.
    """
    if request.fault is Fault.FILES:
        # It may pause the study, which is locked before its trials.
        lock_of_trial(connection, trial_id)
    row = execute(
        connection,
        "release",
        **_fence(trial_id, request, token),
        reason=request.reason,
        message=request.message,
        checkpoint=request.checkpoint,
        fault=request.fault,
        is_machines=request.fault in MACHINE_FAULTS,
        machine_faults=sorted(MACHINE_FAULTS - {Fault.FILES}),
        most_faults=MOST_FAULTS,
        tried_seconds=TRIED_SECONDS,
        alive_seconds=workers.ALIVE_SECONDS,
        large_seconds=LARGE_SECONDS,
        **_backoff(),
    ).one_or_none()
    if row is None:
        raise _stale(connection, trial_id, token)
    if row.state == TrialState.STOPPED:
        marks.refresh(connection, [trial_id])
    elif row.state != TrialState.FAILED:
        announce(connection, Channel.TRIALS)
    workers.touch(connection, row.lease_worker)
    detail = {"attempt": request.attempt, "reason": request.reason, "state": row.state, "retries": row.retries}
    about = {} if request.fault is None else {"fault": request.fault, "message": _first_line(request.message)}
    events.append(connection, row.study_id, trial_id, "trial.released", row.lease_worker, {**detail, **about})
    if request.fault is None:
        if request.reason != "crashed":
            quarantine.note_end(connection, row.lease_worker, failed=False)
    elif request.fault is Fault.FILES:
        # No quarantine: other studies may have their files there, and `claim` keeps the worker from this one.
        pause_without_files(connection, row.study_id, row.lease_worker, _first_line(request.message))
        quarantine.note_end(connection, row.lease_worker, failed=False)
    else:
        quarantine.note_fault(connection, row.lease_worker, request.fault, request.message, study_id=row.study_id)


def reap(connection: Connection) -> list[int]:
    """Take back the trials whose leases have expired; return their ids. Any number of callers may do it at once."""
    # An UPDATE returns its rows in the order of the plan that was chosen for it.
    rows = sorted(execute(connection, "reap", **_backoff()).all(), key=lambda row: row.id)
    details = [
        (row.study_id, row.id, {"worker": row.lease_worker, "state": row.state, "retries": row.retries}) for row in rows
    ]
    marks.refresh(connection, [row.id for row in rows if row.state == TrialState.STOPPED])
    events.append_all(connection, "trial.expired", "reaper", details)
    return [int(row.id) for row in rows]


def give_up(connection: Connection) -> list[int]:
    """Fail the trials of which a single clip did not fit and for which no larger worker came; return their ids.

    Those for which there is none since now get an event that says so.
    """
    times = {"alive_seconds": workers.ALIVE_SECONDS, "wait_seconds": LARGER_SECONDS}
    gone = sorted((row.study_id, row.id) for row in execute(connection, "give_up", **times))
    detail = {"failure_kind": FailureKind.OOM}
    events.append_all(connection, "trial.failed", "upkeep", [(study, trial, detail) for study, trial in gone])
    for row in execute(connection, "warn", **times).all():
        about = {"attempt": row.attempt, "worker": row.worker, "memory_bytes": row.memory_bytes}
        events.append(connection, row.study_id, row.id, "trial.waits", "upkeep", about)
    return [trial for _, trial in gone]


def cancel(connection: Connection, trial_id: int, *, actor: str) -> TrialState:
    """End a trial early, at once when it waits; the worker of a running one learns of it with its next heartbeat.

    Raises:
        NotFoundError: there is no such trial.
    """
    row = execute(connection, "cancel", trial_id=trial_id).one_or_none()
    if row is None:
        return trials.record(connection, trial_id).state
    if row.state == TrialState.STOPPED:
        marks.refresh(connection, [trial_id])
    events.append(connection, row.study_id, trial_id, "trial.cancelled", actor, {"state": row.state})
    return TrialState(row.state)


def discard(connection: Connection, trial_id: int, *, actor: str) -> TrialRecord:
    """Take a trial that has ended out of its study, and return it: its result counts for nothing any more.

    Raises:
        NotFoundError: there is no such trial.
        ConflictError: it has not ended, or its configuration was trained again.
    """
    before = trials.record(connection, trial_id)
    row = execute(connection, "discard", trial_id=trial_id).one_or_none()
    if row is None:
        raise ConflictError(_why_kept(connection, before))
    marks.refresh(connection, [trial_id])
    events.append(connection, row.study_id, trial_id, "trial.deleted", actor, {"state": row.old_state})
    return trials.record(connection, trial_id)


def _why_kept(connection: Connection, record: TrialRecord) -> str:
    """Return why a trial is not taken out of its study, and what to do."""
    if record.state is TrialState.WITHDRAWN:
        return f"trial {record.number} is out of its study already"
    if not record.state.is_terminal:
        todo = "cancel it and wait until its worker has let go" if record.state is TrialState.RUNNING else "cancel it"
        return f"trial {record.number} is {record.state}: {todo}, and delete it then"
    again = connection.execute(_TRAINED_AGAIN, {"trial_id": record.id, "number": record.number}).scalars().all()
    which = ", ".join(map(str, again)) or "others"
    return f"the configuration of trial {record.number} was trained again as trial {which}: delete that first"


def _await_earlier(connection: Connection, trial_id: int, request: Fence) -> None:
    """Have the next statement see what calls of this lease have written that were begun before and are open still."""
    lease = {"attempt": request.attempt, "lease_id": str(request.lease_id)}
    later(connection, _OWN, {"trial_id": trial_id, **lease})


def _fence(trial_id: int, request: Fence, token: int | None) -> dict[str, Any]:
    return {"trial_id": trial_id, "attempt": request.attempt, "lease_id": str(request.lease_id), "token": token}


def _backoff() -> dict[str, float]:
    return {"backoff_seconds": BACKOFF_SECONDS, "backoff_limit_seconds": BACKOFF_LIMIT_SECONDS}


def _require(connection: Connection, token: int | None) -> None:
    """Raise AuthenticationError where the token that calls is not valid any more."""
    if token is not None:
        tokens.check(connection, token)


def _stale(connection: Connection, trial_id: int, token: int | None) -> StaleLeaseError | NotFoundError:
    """Return why a statement with a fence has changed nothing; raise AuthenticationError where the token is why."""
    _require(connection, token)
    if connection.execute(_EXISTS, {"id": trial_id}).first() is None:
        return NotFoundError(f"there is no trial {trial_id}; its study was probably deleted")
    return StaleLeaseError()


def _first_line(message: str | None) -> str:
    return (message or "no message was given").partition("\n")[0]


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(value, allow_nan=False)
