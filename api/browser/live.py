"""Streams that tell an open page when there is something new; the page then asks for itself again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from hpo.errors import HpoError
from hpo.store import Database, news, studies, tokens

from ..auth.scopes import Reader
from ..names import StudyName
from ..state import State

router = APIRouter()

POLL_SECONDS: Final = 1.0
STREAM_SECONDS: Final = 300.0
"""A stream ends after this long and the browser comes back by itself: a server that restarts is not held up."""


@router.get("/live", include_in_schema=False)
async def watch_everything(request: Request, state: State, reader: Reader) -> StreamingResponse:
    """Tell when anything has changed that the list of studies or of workers shows."""
    return _streamed(request, _reading(state.database, reader.token.id, None))


@router.get("/studies/{name}/live", include_in_schema=False)
async def watch_study(request: Request, state: State, reader: Reader, name: StudyName) -> StreamingResponse:
    """Tell when anything has changed in a study."""

    def identify() -> int:
        with state.database.transaction() as connection:
            return studies.id_of(connection, name)

    return _streamed(request, _reading(state.database, reader.token.id, await to_thread.run_sync(identify)))


def _reading(database: Database, token_id: int, study_id: int | None) -> Callable[[], str]:
    def read() -> str:
        with database.transaction() as connection:
            tokens.check(connection, token_id)
            return news.mark(connection, study_id)

    return read


def _streamed(request: Request, read: Callable[[], str]) -> StreamingResponse:
    return StreamingResponse(_stream(request, read), media_type="text/event-stream")


async def _stream(request: Request, read: Callable[[], str]) -> AsyncIterator[str]:
    ends = asyncio.get_running_loop().time() + STREAM_SECONDS
    yield "retry: 1000\n\n"
    last = None
    while asyncio.get_running_loop().time() < ends and not await request.is_disconnected():
        try:
            mark = await to_thread.run_sync(read)
        except HpoError:
            return  # logged out, deleted, or Postgres is away: the browser asks again and the status says so
        # The first mark too: something may have changed since the page was made.
        yield ": waiting\n\n" if mark == last else f"data: {mark}\n\n"
        last = mark
        await asyncio.sleep(POLL_SECONDS)
