"""Openings of sealed test lists: whoever opens one asks first who did before, and says that it is done."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query

from hpo.results.opening import Digest, Opening
from hpo.store import openings

from ..auth.scopes import BEARER, Admin, Reader
from ..problems import responses
from ..state import State

router = APIRouter(prefix="/v1", tags=["openings"], dependencies=[Depends(BEARER)])

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11",
    "test_list": "3a7bd3e2360a3d29eea436fcfb7e44c7",
    "split": 1,
    "dataset_version": "5feceb66ffc86f38d952786c6d696c79",
    "opened_at": "2026-05-04T12:30:00Z",
    "videos": 3783,
    "reason": "final evaluation of trial 7 of study slowfast-ucf101",
    "checkpoint": "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c",
    "host": "gpu-host-7",
    "score": {
        "chance": 0.0099,
        "top1": 0.91,
        "interval": [0.889, 0.927],
        "videos": 3783,
        "sources": 707,
        "effective_videos": 1210.4,
        "clip_top1": 0.874,
        "clip_top3": 0.931,
        "clip_top5": 0.957,
        "top3": 0.962,
        "top5": 0.978,
        "mean_error": 0.056,
        "mean_class_accuracy": 0.908,
        "mean_average_precision": 0.937,
        "clips": 10,
        "crops": 3,
        "same_dataset": True,
        "dataset_version": "5feceb66ffc86f38d952786c6d696c79",
    },
}


@router.get("/openings", responses=responses(), operation_id="list_openings")
def list_openings(
    state: State, _: Reader, test_list: Annotated[Digest, Query(description="Identity of the list.")]
) -> list[Opening]:
    """Return the openings of a sealed test list, the oldest first."""
    with state.database.transaction() as connection:
        return openings.of_list(connection, test_list)


@router.post(
    "/openings",
    status_code=204,
    responses=responses(409),
    operation_id="keep_opening",
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": {"scored": {"value": _EXAMPLE}}}}}},
)
def keep_opening(state: State, who: Admin, opening: Opening) -> None:
    """Keep an opening, or the score of one that is kept already; a repeat changes nothing."""
    with state.database.transaction() as connection:
        openings.keep(connection, opening, actor=who.name)
