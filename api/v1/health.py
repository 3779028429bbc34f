"""Whether the service can do its work: open to everybody, who learn no more than that; who may read learns why."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from hpo.errors import StoreUnavailableError
from hpo.store import generators

from ..auth.scopes import BEARER, ReaderOrStranger, StoreIsAway
from ..problems import RETRY_AFTER_SECONDS, responses
from ..state import State

router = APIRouter(prefix="/v1/health", tags=["health"])


class Health(BaseModel):
    """`degraded`: claims are answered, but not everything works; `unavailable`: Postgres cannot be reached."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    database: Literal["ok", "unreachable"] | None = None
    """Only for holders of a token or session, and where it says no more than `status`."""
    optimizer: Literal["ok", "idle", "missing", "unknown"] | None = None
    """As `database`. `idle`: no study that this release can read is active; `missing`: an active study is served by
    none and gets quasi-random trials."""


@router.get(
    "",
    responses={
        **{status: responses()[status] for status in (421, 422)},
        503: {"model": Health, "description": "Postgres cannot be reached."},
    },
    response_model_exclude_none=True,
    dependencies=[Depends(BEARER)],
    operation_id="get_health",
)
def get_health(
    state: State,
    response: Response,
    reader: ReaderOrStranger,
    store_is_away: StoreIsAway,
    strict: Annotated[bool, Query(description="Answer 503 also when degraded.")] = False,
) -> Health:
    """Say how the service is. No token is needed; with one, the answer says what is missing."""
    try:
        if store_is_away:
            raise StoreUnavailableError
        with state.database.transaction() as connection:
            optimizer = _optimizer(connection)
    except StoreUnavailableError:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return Health(status="unavailable", version=_version(), database="unreachable", optimizer="unknown")
    status: Literal["ok", "degraded"] = "degraded" if optimizer == "missing" else "ok"
    if strict and status != "ok":
        response.status_code = 503
    if reader is None:
        return Health(status=status, version=_version())
    return Health(status=status, version=_version(), database="ok", optimizer=optimizer)


@router.get("/live", status_code=204, responses={421: responses()[421]}, operation_id="get_live")
async def get_live() -> None:
    """Say that this process answers, whatever else is away: what Kubernetes asks before it starts a process again.

    Nothing waits for a thread or for Postgres, whose absence no new process would mend.
    """


def _optimizer(connection: Connection) -> Literal["ok", "idle", "missing"]:
    active, served = generators.count_served(connection)
    if not active:
        return "idle"
    return "ok" if served == active else "missing"


@cache
def _version() -> str:
    return version("video-hpo")
