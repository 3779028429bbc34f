"""What happened in a study: as a list to poll, and as a stream of Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Connection, select

from hpo.activity import stored_progress
from hpo.errors import HpoError
from hpo.protocol import Progress
from hpo.store import events, studies, tables, tokens, trials

from ..auth.scopes import BEARER, Reader
from ..names import StudyName
from ..problems import responses
from ..state import ApiState, State

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


class ProgressEvent(BaseModel):
    """How far a running trial is. It is in the stream alone, without an id, and nothing to continue from."""

    kind: Literal["trial.progress"] = "trial.progress"
    trial_number: int
    actor: str
    """The worker."""
    detail: Progress
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
    reader: Reader,
    name: StudyName,
    *,
    after: Position = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**63 - 1)] = None,
) -> StreamingResponse:
    """Stream events as they happen (Server-Sent Events), from `after` or the header `Last-Event-ID`.

    Between them come messages `trial.progress` without an id: how far a running trial is, when its worker has said so.
    """
    start = after if last_event_id is None else last_event_id
    # The first read is made here, so that an unknown study is a 404 and not a broken stream.
    first = await to_thread.run_sync(_read, state, name, start, 500)

    def read(after: int) -> list[Event]:
        return _read(state, name, after, 500, token_id=reader.token.id)

    def running() -> list[ProgressEvent]:
        return _read_progress(state, name)

    return StreamingResponse(_stream(request, read, running, start, first), media_type="text/event-stream")


async def _stream(
    request: Request,
    read: Callable[[int], list[Event]],
    running: Callable[[], list[ProgressEvent]],
    after: int,
    found: list[Event],
) -> AsyncIterator[str]:
    ends = asyncio.get_running_loop().time() + STREAM_SECONDS
    yield ": connected\n\n"
    shown: set[tuple[int, datetime]] = set()
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
            found = await to_thread.run_sync(read, after)
            progress = await to_thread.run_sync(running)
        except HpoError:
            # The study is gone, the token revoked or Postgres away: the client asks again and the status says so.
            return
        for news in progress:
            if (news.trial_number, news.at) not in shown:
                yield f"event: {news.kind}\ndata: {news.model_dump_json()}\n\n"
        shown = {(news.trial_number, news.at) for news in progress}


def _read_progress(state: ApiState, name: str) -> list[ProgressEvent]:
    with state.database.transaction() as connection:
        rows = trials.running(connection, studies.get(connection, name).id)
    return [
        ProgressEvent(trial_number=row.number, actor=row.worker, detail=progress, at=row.progress_at)
        for row in rows
        if (progress := stored_progress(row.progress)) is not None
    ]


def _read(state: ApiState, name: str, after: int, limit: int, *, token_id: int | None = None) -> list[Event]:
    with state.database.transaction() as connection:
        if token_id is not None:
            tokens.check(connection, token_id)
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
