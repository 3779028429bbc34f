"""The way of workers' calls to the database: few of them at a time, over connections of their own.

Where thirty transactions are open at a time, Postgres spends half of its CPU on what they do to each other, and each
takes longer than it would alone. Pages have other connections and threads, so that neither side waits for the other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread

from hpo.errors import StoreUnavailableError
from hpo.store import Database

Answer = TypeVar("Answer")

PLACES: Final = 6
"""Calls of workers that one process has in the database at a time."""
WAIT_SECONDS: Final = 10.0
"""A call that gets no place for so long is refused, as one is that gets no connection."""
SLOW_SECONDS: Final = 1.0
"""A call that takes longer leaves its place to another and goes on: it waits for a lock, or the database does not
answer, and workers of other studies must not wait with it."""


class Lane:
    """The places in the database for calls of workers. For one event loop; who waits longest is served first."""

    def __init__(
        self,
        database: Database,
        *,
        connections: int,
        wait_seconds: float = WAIT_SECONDS,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        """Make a lane to a database, with up to `connections` beside those of `database`.

        More than there are places are opened only while slow calls keep theirs.
        """
        places = min(PLACES, connections)
        self._database = database.beside(pool_size=places, max_overflow=connections - places)
        self._places = asyncio.Semaphore(places)
        self._threads = CapacityLimiter(math.inf)  # not those of pages, and no more than have had a place
        self._wait_seconds = wait_seconds
        self._slow_seconds = slow_seconds

    async def run(self, call: Callable[[Database], Answer]) -> Answer:
        """Return what a call returns, made in a thread as soon as there is a place for it.

        Raises:
            StoreUnavailableError: there was none for too long; nothing was done.
        """
        await self._enter()
        place = _Place(self._places)
        slow = asyncio.get_running_loop().call_later(self._slow_seconds, place.leave)
        try:
            return await to_thread.run_sync(call, self._database, limiter=self._threads)
        finally:
            slow.cancel()
            place.leave()

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._database.close()

    async def _enter(self) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise StoreUnavailableError("too many calls of workers wait; try again shortly") from error


class _Place:
    """One place that is taken, until it is left for the first time."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._is_left = False

    def leave(self) -> None:
        """Give it to who waits."""
        if not self._is_left:
            self._is_left = True
            self._places.release()
