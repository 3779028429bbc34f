"""Checkpoint files: machines that have some learn what stays of them. The files themselves never come here."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Depends

from hpo.protocol import FilesReply, FilesRequest, RemovalsReply, RemovalsRequest
from hpo.service import checkpoints

from ..auth.scopes import BEARER, WorkerOnly
from ..problems import responses
from ..state import State

router = APIRouter(prefix="/v1/checkpoints", tags=["workers"], dependencies=[Depends(BEARER)])

_STUDY: Final = "0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11"


def _example(value: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"examples": {"two": {"value": value}}}}}}


@router.post(
    "/plan",
    responses=responses(),
    operation_id="plan_files",
    openapi_extra=_example({"study": _STUDY, "trials": [17, 18]}),
)
def plan_files(state: State, _: WorkerOnly, request: FilesRequest) -> FilesReply:
    """Say what stays of the files of these trials, and why; a study that does not exist is no error."""
    with state.database.transaction() as connection:
        return checkpoints.what_stays(connection, request)


@router.post(
    "/removals",
    responses=responses(),
    operation_id="give_up_files",
    openapi_extra=_example({"study": _STUDY, "trials": [17, 18], "last": [17]}),
)
def give_up_files(state: State, who: WorkerOnly, request: RemovalsRequest) -> RemovalsReply:
    """Say of which of these trials the weights may go now, and record it; the same request again changes nothing."""
    with state.database.transaction() as connection:
        return RemovalsReply(trials=checkpoints.give_up(connection, request, actor=who.name))
