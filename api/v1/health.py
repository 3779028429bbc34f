"""Whether the service can do its work: open to everybody, so it shows no names."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from hpo.errors import StoreUnavailableError
from hpo.store import studies
from hpo.trial import StudyState

from ..problems import RETRY_AFTER_SECONDS, responses
from ..state import State

router = APIRouter(prefix="/v1/health", tags=["health"])


class Health(BaseModel):
    """`degraded`: claims are answered, but an active study has no optimizer and gets quasi-random trials."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    database: Literal["ok", "unreachable"]
    optimizer: Literal["ok", "idle", "missing", "unknown"]
    """`idle`: no study is active; `missing`: an active study is served by none."""


@router.get(
    "",
    responses={
        **{status: responses()[status] for status in (421, 422)},
        503: {"model": Health, "description": "Postgres cannot be reached."},
    },
    operation_id="get_health",
)
def get_health(
    state: State,
    response: Response,
    strict: Annotated[bool, Query(description="Answer 503 also when degraded.")] = False,
) -> Health:
    """Say how the service is. No token is needed."""
    try:
        with state.database.transaction() as connection:
            optimizer = _optimizer(connection)
    except StoreUnavailableError:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return Health(status="unavailable", version=_version(), database="unreachable", optimizer="unknown")
    status: Literal["ok", "degraded"] = "degraded" if optimizer == "missing" else "ok"
    if strict and status != "ok":
        response.status_code = 503
    return Health(status=status, version=_version(), database="ok", optimizer=optimizer)


def _optimizer(connection: Connection) -> Literal["ok", "idle", "missing"]:
    active = [row.id for row in studies.list_all(connection) if row.state is StudyState.ACTIVE]
    if not active:
        return "idle"
    return "ok" if all(studies.generator_is_alive(connection, study_id) for study_id in active) else "missing"


@cache
def _version() -> str:
    return version("video-hpo")
