"""What workers call: claim a trial, report on it, finish it, give it back. Every call repeats safely."""

from __future__ import annotations

import logging
import random
import re
import time
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Request, Response

from hpo import traces
from hpo.errors import UnusableStudyError
from hpo.protocol import (
    QUARANTINE_HEADER,
    STUDY_HEADER,
    ClaimRequest,
    FinishRequest,
    Lease,
    ReleaseRequest,
    ReportReply,
    ReportRequest,
)
from hpo.service.data_versions import note_version
from hpo.service.decision import decide
from hpo.service.finishing import end_study_after_result, end_study_if_finished
from hpo.service.notices import note_few_clips
from hpo.store import Database, lifecycle, quarantine, study_fault, trials
from hpo.trial import RESULT_STATES

from ..auth.scopes import BEARER, Principal, WorkerOnly
from ..names import TrialId
from ..problems import responses
from ..state import ApiState, State
from .trials import Trial, written

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1", tags=["workers"], dependencies=[Depends(BEARER)])

FENCE: Final[dict[str, Any]] = {"attempt": 1, "lease_id": "0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11"}
CLAIM_EXAMPLE: Final[dict[str, Any]] = {
    "lease_id": FENCE["lease_id"],
    "study": None,
    "worker": {
        "name": "gpu-host-7:0",
        "host": "gpu-host-7",
        "pid": 4711,
        "device": "cuda:0",
        "gpu_name": "NVIDIA A100",
        "memory_bytes": 85899345920,
        "version": "0.1.0",
    },
}
MEASUREMENT: Final[dict[str, Any]] = {
    "step": 3,
    "metrics": {"val_top1": 0.61, "val_loss": 1.32},
    "wall_seconds": 41.2,
    "gpu_seconds": 38.9,
}
TraceParent = Annotated[str | None, Header(alias=traces.HEADER, include_in_schema=False)]
"""The span of the worker that a call is a part of, in the form of W3C's Trace Context."""
Preference = Annotated[str | None, Header(max_length=200, description="`wait=SECONDS`: how long to wait for a trial.")]
QUARANTINE_SECONDS: Final = 15
"""How long a worker in quarantine waits before it asks again."""
NOTHING_TO_DO: Final[dict[int | str, dict[str, Any]]] = {
    204: {
        "description": "Nothing to do at the moment; ask again after `Retry-After` seconds.",
        "headers": {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."},
            QUARANTINE_HEADER: {
                "schema": {"type": "string"},
                "description": "Why this worker gets no trial at all, percent-encoded; left out otherwise.",
            },
        },
    }
}


def _examples(**values: Any) -> dict[str, Any]:
    examples = {name: {"value": value} for name, value in values.items()}
    return {"requestBody": {"content": {"application/json": {"examples": examples}}}}


@router.post(
    "/leases",
    response_model=Lease,
    responses={**responses(404), **NOTHING_TO_DO},
    operation_id="claim_trial",
    openapi_extra=_examples(gpu=CLAIM_EXAMPLE),
)
async def claim_trial(
    http: Request, state: State, who: WorkerOnly, request: ClaimRequest, prefer: Preference = None
) -> Response:
    """Claim a trial to run. The worker chooses `lease_id`; the same id again gives the same lease.

    With the header `Prefer: wait=SECONDS` the answer that there is none comes after that time (at most a few seconds),
    and a trial that comes meanwhile is given at once.
    """
    held_seconds = min(_asked_wait(prefer), state.config.claim_wait_seconds)
    ends = time.monotonic() + held_seconds
    with state.waiters.ticket() as ticket:
        while True:
            ticket.begin()
            answer = await state.lane.run(partial(_claim_now, state, who, request))
            if answer is not None:
                return answer
            left = ends - time.monotonic()
            # A worker that is gone must not get the trial that comes next.
            if left <= 0 or await http.is_disconnected():
                break
            await ticket.wait(left)
            if await http.is_disconnected():
                break
    # Jitter, so that a hundred idle workers do not come back as one; who has waited here may come back at once.
    seconds = 0 if held_seconds > 0 else random.choice((1, 1, 2))  # noqa: S311 - no secret
    return Response(status_code=204, headers={"Retry-After": str(seconds)})


def _asked_wait(prefer: str | None) -> float:
    """Return the seconds of `wait` in a header Prefer (RFC 7240); 0 where it has none."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", prefer or "", re.IGNORECASE)
    return float(found[1]) if found else 0.0


def _claim_now(state: ApiState, who: Principal, request: ClaimRequest, database: Database) -> Response | None:
    """Return the answer with a lease, or why this worker gets none at all; None if there is no trial for it."""
    began = time.time()
    lease, reason = _claim(state, database, who, request)
    if reason is not None:
        headers = {"Retry-After": str(QUARANTINE_SECONDS), QUARANTINE_HEADER: quote(reason)}
        return Response(status_code=204, headers=headers)
    if lease is None:
        lease, _ = _claim(state, database, who, request, with_fallback=True)
    if lease is None:
        return None
    # Written here, so that workers of earlier releases do not get fields that they would refuse.
    headers = {STUDY_HEADER: str(lease.study_uuid)}
    claimed = traces.record(
        "claim",
        traces.of_trial(lease.study_uuid, lease.trial_id),
        began=began,
        study=lease.study,
        trial=lease.number,
        attempt=lease.attempt,
        worker=request.worker.name,
    )
    if claimed is not None:
        headers[traces.HEADER] = claimed
    return Response(lease.to_json(), media_type="application/json", headers=headers)


def _claim(
    state: ApiState, database: Database, who: Principal, request: ClaimRequest, *, with_fallback: bool = False
) -> tuple[Lease | None, str | None]:
    """Return a lease, or why this worker gets none at all. A study whose trials cannot be handed out is paused.

    `with_fallback` adds a trial first where a study has been without an optimizer for long enough.
    """
    seconds, lease, reason = state.config.lease_seconds, None, None
    while True:
        try:
            with database.transaction() as connection:
                asking = request.worker
                if not with_fallback or state.fallback.suggest(
                    connection, request.study, request.task_kinds, gpus=asking.gpus, nodes=asking.nodes
                ):
                    lease = lifecycle.claim(connection, request, lease_seconds=seconds, token=who.token_id)
                if lease is None and not with_fallback:
                    reason = quarantine.reason(connection, request.worker.name)
        except UnusableStudyError as error:
            log.exception("a study is paused")
            with database.transaction() as connection:
                study_fault.pause_unusable(connection, error.study_id, str(error))
        else:
            return lease, reason


@router.post(
    "/trials/{trial_id}/reports",
    response_model=ReportReply,
    responses=responses(404, 409),
    operation_id="report_trial",
    openapi_extra=_examples(
        epoch={**FENCE, "measurements": [MEASUREMENT], "checkpoint": "/data/checkpoints/17/last.pt"}, heartbeat=FENCE
    ),
)
async def report_trial(
    state: State, who: WorkerOnly, trial_id: TrialId, request: ReportRequest, part_of: TraceParent = None
) -> Response:
    """Keep the lease, store what was measured (if anything) and learn what to do next, in one call."""
    reply = await state.lane.run(partial(_report, state, who, trial_id, request, part_of))
    # Workers of earlier releases refuse a field that they do not know.
    return Response(reply.model_dump_json(exclude_none=True), media_type="application/json")


def _report(  # noqa: PLR0917 - what the route was given
    state: ApiState,
    who: Principal,
    trial_id: int,
    request: ReportRequest,
    part_of: str | None,
    database: Database,
) -> ReportReply:
    began = time.time()
    with database.transaction() as connection:
        reported = lifecycle.report(connection, trial_id, request, token=who.token_id)
        note_few_clips(connection, reported.study_id, request.measurements)
        notice = note_version(
            connection, reported.study_id, trial_id, request.dataset_version, actor=reported.worker or who.name
        )
    last_step = max((measurement.step for measurement in request.measurements), default=None)
    with state.timings.decisions.time():
        decision = decide(database, reported, trial_id, last_step=last_step)
    if last_step is not None:  # not for heartbeats
        traces.record("report", part_of, began=began, epoch=last_step, decision=decision)
    return ReportReply(decision=decision, notice=notice)


@router.post(
    "/trials/{trial_id}/finish",
    response_model=Trial,
    responses=responses(404, 409),
    operation_id="finish_trial",
    openapi_extra=_examples(
        completed={**FENCE, "outcome": "completed", "metrics": {"val_top1": 0.72, "val_loss": 1.04}},
        failed={**FENCE, "outcome": "failed", "failure_kind": "oom", "failure_message": "CUDA out of memory"},
    ),
)
async def finish_trial(
    state: State, who: WorkerOnly, trial_id: TrialId, request: FinishRequest, part_of: TraceParent = None
) -> Response:
    """End a trial with its result or its failure."""
    return written(await state.lane.run(partial(_finish, who, trial_id, request, part_of)))


def _finish(who: Principal, trial_id: int, request: FinishRequest, part_of: str | None, database: Database) -> Trial:
    began = time.time()
    with database.transaction() as connection:
        record = lifecycle.finish(connection, trial_id, request, token=who.token_id)
        study_id = None if record.state in RESULT_STATES else trials.study_of(connection, trial_id)
    # Whoever waits for the study sees its end now, not at the next round of upkeep.
    if study_id is None:
        end_study_after_result(database, trial_id)
    else:
        end_study_if_finished(database, study_id)
    traces.record("finish", part_of, began=began, state=record.state)
    if record.created_at is not None:
        began = record.created_at.timestamp()
        traces.record_trial(
            "trial", part_of, began=began, trial=record.number, state=record.state, attempts=record.attempt
        )
    return Trial.of(record)


@router.post(
    "/trials/{trial_id}/release",
    status_code=204,
    responses=responses(404, 409),
    operation_id="release_trial",
    openapi_extra=_examples(
        drained={**FENCE, "reason": "drained"},
        faulty={**FENCE, "reason": "crashed", "fault": "storage", "message": "the disk of the cache is full"},
    ),
)
async def release_trial(
    state: State, who: WorkerOnly, trial_id: TrialId, request: ReleaseRequest, part_of: TraceParent = None
) -> None:
    """Give a trial back unfinished; it continues from its checkpoint, here or elsewhere."""
    await state.lane.run(partial(_release, who, trial_id, request, part_of))


def _release(who: Principal, trial_id: int, request: ReleaseRequest, part_of: str | None, database: Database) -> None:
    began = time.time()
    with database.transaction() as connection:
        lifecycle.release(connection, trial_id, request, token=who.token_id)
        study_id = trials.study_of(connection, trial_id)
    # The rung that this trial has filled may promote another, and the last trial given back may end the study.
    end_study_if_finished(database, study_id)
    traces.record("release", part_of, began=began, reason=request.reason, fault=request.fault)
