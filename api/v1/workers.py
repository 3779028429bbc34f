"""The workers that have been heard of."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from hpo.store import workers

from ..auth.scopes import BEARER, Reader
from ..problems import responses
from ..state import State

router = APIRouter(prefix="/v1/workers", tags=["workers"], dependencies=[Depends(BEARER)])


class Worker(BaseModel):
    """A worker as it last introduced itself."""

    name: str
    host: str
    pid: int
    device: str
    gpu_name: str | None
    memory_bytes: int | None
    version: str
    study: str | None
    """The one study that it asks for; null when it takes any."""
    first_seen: datetime
    last_seen: datetime
    alive: bool
    """Whether it was heard of within the last minute."""
    trial_id: int | None
    """The trial that it runs."""


@router.get("", responses=responses(), operation_id="list_workers")
def list_workers(state: State, _: Reader) -> list[Worker]:
    """List all workers, the latest heard of first."""
    with state.database.transaction() as connection:
        rows = workers.list_all(connection)
    named = [name for name in Worker.model_fields if name != "alive"]
    return [
        Worker(**{name: getattr(row, name) for name in named}, alive=row.seconds_since_seen <= workers.ALIVE_SECONDS)
        for row in rows
    ]
