"""What workers call: claim a trial, report on it, finish it, give it back. Every call repeats safely."""

from __future__ import annotations

import random
from typing import Any, Final

from fastapi import APIRouter, Depends, Response

from hpo.protocol import ClaimRequest, FinishRequest, Lease, ReleaseRequest, ReportReply, ReportRequest
from hpo.service.decision import decide
from hpo.service.finishing import end_finished_studies
from hpo.store import lifecycle

from ..auth.scopes import BEARER, WorkerOnly
from ..problems import responses
from ..state import State
from .names import TrialId
from .trials import Trial

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
NOTHING_TO_DO: Final[dict[int | str, dict[str, Any]]] = {
    204: {
        "description": "Nothing to do at the moment; ask again after `Retry-After` seconds.",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
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
def claim_trial(state: State, _: WorkerOnly, request: ClaimRequest) -> Lease | Response:
    """Claim a trial to run. The worker chooses `lease_id`; the same id again gives the same lease."""
    with state.database.transaction() as connection:
        lease = lifecycle.claim(connection, request, lease_seconds=state.config.lease_seconds)
    if lease is None:
        with state.database.transaction() as connection:
            if state.fallback.suggest(connection, request.study):
                lease = lifecycle.claim(connection, request, lease_seconds=state.config.lease_seconds)
    if lease is None:
        # Jitter, so that a hundred idle workers do not come back as one.
        return Response(status_code=204, headers={"Retry-After": str(random.choice((1, 1, 2)))})  # noqa: S311 - no secret
    return lease


@router.post(
    "/trials/{trial_id}/reports",
    responses=responses(404, 409),
    operation_id="report_trial",
    openapi_extra=_examples(
        epoch={**FENCE, "measurements": [MEASUREMENT], "checkpoint": "/data/checkpoints/17/last.pt"}, heartbeat=FENCE
    ),
)
def report_trial(state: State, _: WorkerOnly, trial_id: TrialId, request: ReportRequest) -> ReportReply:
    """Keep the lease, store what was measured (if anything) and learn what to do next, in one call."""
    with state.database.transaction() as connection:
        reported = lifecycle.report(connection, trial_id, request)
    last_step = max((measurement.step for measurement in request.measurements), default=None)
    return ReportReply(decision=decide(state.database, reported, trial_id, last_step=last_step))


@router.post(
    "/trials/{trial_id}/finish",
    responses=responses(404, 409),
    operation_id="finish_trial",
    openapi_extra=_examples(
        completed={**FENCE, "outcome": "completed", "metrics": {"val_top1": 0.72, "val_loss": 1.04}},
        failed={**FENCE, "outcome": "failed", "failure_kind": "oom", "failure_message": "CUDA out of memory"},
    ),
)
def finish_trial(state: State, _: WorkerOnly, trial_id: TrialId, request: FinishRequest) -> Trial:
    """End a trial with its result or its failure."""
    with state.database.transaction() as connection:
        record = lifecycle.finish(connection, trial_id, request)
    with state.database.transaction() as connection:
        # Whoever waits for the study sees its end now, not at the next round of upkeep.
        end_finished_studies(connection)
    return Trial.of(record)


@router.post(
    "/trials/{trial_id}/release",
    status_code=204,
    responses=responses(404, 409),
    operation_id="release_trial",
    openapi_extra=_examples(drained={**FENCE, "reason": "drained"}),
)
def release_trial(state: State, _: WorkerOnly, trial_id: TrialId, request: ReleaseRequest) -> None:
    """Give a trial back unfinished; it continues from its checkpoint, here or elsewhere."""
    with state.database.transaction() as connection:
        lifecycle.release(connection, trial_id, request)
    if request.reason == "paused":
        with state.database.transaction() as connection:
            # The rung that this trial has filled may promote another, and the last pause may end the study.
            end_finished_studies(connection)
