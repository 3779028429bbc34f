"""What happened in a study: as a list to poll, and as a stream of Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Connection, select

from hpo.errors import HpoError
from hpo.store import events, studies, tables

from ..auth.scopes import BEARER, Reader
from ..problems import responses
from ..state import ApiState, State
from .names import StudyName

router = APIRouter(prefix="/v1/studies/{name}/events", tags=["events"], dependencies=[Depends(BEARER)])

POLL_SECONDS: Final = 1.0
STREAM_SECONDS: Final = 300.0
"""A stream ends after this long and the browser comes back by itself: a server that restarts is not held up."""
Position = Annotated[int, Query(ge=0, le=2**63 - 1, description="Id of the last event received; 0 for all.")]


class Event(BaseModel):
    """Something that happened: what, to which trial, by whom. `id` is the position to continue from."""

    id: int
    kind: str
    trial_number: int | None
    """Null for events of the study itself."""
    actor: str
    detail: dict[str, Any]
    at: datetime


@router.get("", responses=responses(404), operation_id="list_events")
def list_events(
    state: State,
    _: Reader,
    name: StudyName,
    after: Position = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
) -> list[Event]:
    """List events in their order; give the id of the last one as `after` to continue."""
    return _read(state, name, after, limit)


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={
        **responses(404),
        200: {"description": "One JSON event per message.", "content": {"text/event-stream": {}}},
    },
    operation_id="stream_events",
)
async def stream_events(
    request: Request,
    state: State,
    _: Reader,
    name: StudyName,
    after: Position = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**63 - 1)] = None,
) -> StreamingResponse:
    """Stream events as they happen (Server-Sent Events), from `after` or the header `Last-Event-ID`."""
    start = after if last_event_id is None else last_event_id
    # The first read is made here, so that an unknown study is a 404 and not a broken stream.
    first = await to_thread.run_sync(_read, state, name, start, 500)
    return StreamingResponse(_stream(request, state, name, start, first), media_type="text/event-stream")


async def _stream(request: Request, state: ApiState, name: str, after: int, found: list[Event]) -> AsyncIterator[str]:
    ends = asyncio.get_running_loop().time() + STREAM_SECONDS
    yield ": connected\n\n"
    while True:
        for event in found:
            after = event.id
            yield f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
        if not found:
            await asyncio.sleep(POLL_SECONDS)
            yield ": waiting\n\n"
        if asyncio.get_running_loop().time() > ends or await request.is_disconnected():
            return
        try:
            found = await to_thread.run_sync(_read, state, name, after, 500)
        except HpoError:
            # The study is gone or Postgres away: the client asks again and the status says so.
            return


def _read(state: ApiState, name: str, after: int, limit: int) -> list[Event]:
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
        rows = events.list_since(connection, study.id, after, limit)
        numbers = _numbers(connection, {row.trial_id for row in rows if row.trial_id is not None})
    return [
        Event(
            id=row.id,
            kind=row.kind,
            trial_number=numbers.get(row.trial_id) if row.trial_id is not None else None,
            actor=row.actor,
            detail=dict(row.detail),
            at=row.created_at,
        )
        for row in rows
    ]


def _numbers(connection: Connection, trial_ids: set[int]) -> dict[int, int]:
    trial = tables.trial
    query = select(trial.c.id, trial.c.number).where(trial.c.id.in_(trial_ids))
    return {trial_id: number for trial_id, number in connection.execute(query)}
