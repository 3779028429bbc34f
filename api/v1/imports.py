"""Results from elsewhere, taken over as trials of a study."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from hpo.protocol import ImportRequest
from hpo.store import imports

from ..auth.scopes import BEARER, Admin
from ..names import StudyName
from ..problems import responses
from ..state import State

router = APIRouter(prefix="/v1", tags=["studies"], dependencies=[Depends(BEARER)])
_EXAMPLE: Final[dict[str, Any]] = {
    "trials": [
        {
            "origin": {"source": "the table sweep.csv", "trial": "row 2", "key": "5f0c"},
            "params": {"lr": 0.01},
            "state": "completed",
            "metrics": {"val_top1": 0.71},
        }
    ]
}


class Imported(BaseModel):
    """What was taken over."""

    numbers: list[int]
    """The numbers that the new trials got; those that were there already have theirs."""


@router.post(
    "/studies/{name}/import",
    status_code=201,
    responses=responses(404, 409),
    operation_id="import_trials",
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": {"table": {"value": _EXAMPLE}}}}}},
)
def import_trials(state: State, who: Admin, name: StudyName, request: ImportRequest) -> Imported:
    """Take over results that were measured elsewhere, all or none; they count against no budget of the study."""
    with state.database.transaction() as connection:
        return Imported(numbers=imports.take_over(connection, name, request, actor=who.name))
