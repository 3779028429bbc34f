"""Logs of trials: workers send the ends of them in parts, and people read them wherever the trial ran."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from hpo.protocol import LogRequest
from hpo.store import logs, studies, trials

from ..auth.scopes import BEARER, Reader, WorkerOnly
from ..names import StudyName, TrialId, TrialNumber
from ..problems import responses
from ..state import State

router = APIRouter(prefix="/v1", tags=["trials"], dependencies=[Depends(BEARER)])

_EXAMPLE: Final[dict[str, Any]] = {
    "attempt": 1,
    "lease_id": "0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11",
    "start": 0,
    "stop": 25,
    "text": "epoch 1/40: val_top1 0.2\n",
}


class Log(BaseModel):
    """What is kept of the log of an attempt, or of its part after a place."""

    attempt: int
    worker: str
    ended_as: str | None
    """How the attempt ended; null while it runs."""
    start: int
    """Where `text` begins in the log, in bytes: what is older was not kept."""
    stop: int
    """Where it ends; `after` for the next call."""
    text: str


@router.post(
    "/trials/{trial_id}/log",
    status_code=204,
    responses=responses(404, 409),
    operation_id="append_log",
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": {"part": {"value": _EXAMPLE}}}}}},
)
def append_log(state: State, who: WorkerOnly, trial_id: TrialId, request: LogRequest) -> None:
    """Keep a part of the log of a claimed trial; a repeat changes nothing."""
    with state.database.transaction() as connection:
        logs.append(connection, trial_id, request, token=who.token_id)


@router.get("/studies/{name}/trials/{number}/log", responses=responses(404), operation_id="get_log")
def get_log(
    state: State,
    _: Reader,
    name: StudyName,
    number: TrialNumber,
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="The last one, if none is given.")] = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="Only what lies behind this place, in bytes.")] = 0,
) -> Log:
    """Return the end of what a trial printed in one of its attempts."""
    with state.database.transaction() as connection:
        trial = trials.get(connection, studies.get(connection, name).id, number)
        return Log(**asdict(logs.read(connection, trial, attempt=attempt, after=after)))
