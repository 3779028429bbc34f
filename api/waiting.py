"""Claims that found no trial and wait for one: woken when there may be one, in whichever process it came to be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from hpo.store import Database
from hpo.store.notifications import Channel

UNHEARD_SECONDS: Final = 0.25
"""How soon a claim is tried again while nothing is heard of the database."""
_STOP_SECONDS: Final = 0.5


class Ticket:
    """The place of one claim among those that wait. For the event loop."""

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self._called = asyncio.Event()

    def call(self) -> None:
        """Wake the claim."""
        self._called.set()

    def begin(self) -> None:
        """Forget what was said until now: the claim looks for itself."""
        self._called.clear()

    async def wait(self, seconds: float) -> None:
        """Wait until there may be a trial, at most `seconds`."""
        longest = seconds if self._waiters.is_hearing else min(seconds, UNHEARD_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._called.wait(), longest)


class Waiters:
    """All claims of this process that wait."""

    def __init__(self) -> None:
        self.is_hearing = False
        """Whether new trials are heard of."""
        self._tickets: set[Ticket] = set()

    @contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """Yield a place among those that wait."""
        ticket = Ticket(self)
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            self._tickets.discard(ticket)

    def call_all(self) -> None:
        """Wake all. Who finds no trial this time waits again."""
        for ticket in self._tickets:
            ticket.call()


@contextmanager
def hearing(database: Database, waiters: Waiters) -> Iterator[None]:
    """Wake the claims that wait in the running event loop whenever there may be a trial, while the block runs."""
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def hear() -> None:
        listener = database.listen(Channel.TRIALS)
        while not stop.is_set():
            heard = listener.wait(_STOP_SECONDS)
            waiters.is_hearing = listener.is_connected
            if heard and not stop.is_set():
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(waiters.call_all)
        listener.close()

    thread = threading.Thread(target=hear, name="new trials", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
