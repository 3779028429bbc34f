"""What has to happen whether or not anybody asks: leases expire, studies whose budget is reached end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import StoreUnavailableError
from ..store import Database, lifecycle, totals
from .finishing import end_finished_studies

log = logging.getLogger(__name__)


def run_upkeep(database: Database) -> None:
    """Reap expired leases, give up what fits nowhere, and end finished studies, once. Any number may do it at once.

    Raises:
        StoreUnavailableError: Postgres is away.
    """
    with database.transaction() as connection:
        reaped = lifecycle.reap(connection)
    with database.transaction() as connection:
        lifecycle.give_up(connection)
    with database.transaction() as connection:
        totals.fold(connection)
    ended = end_finished_studies(database)
    if reaped:
        log.info("took back %d trials from workers that fell silent", len(reaped))
    for name in ended:
        log.info("study %s has ended", name)


@contextmanager
def upkeep(database: Database, *, seconds: float) -> Iterator[None]:
    """Call `run_upkeep` every `seconds` in a thread of its own while the block runs, through outages too."""
    stop = threading.Event()
    thread = threading.Thread(target=_loop, args=(database, seconds, stop), name="upkeep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def _loop(database: Database, seconds: float, stop: threading.Event) -> None:
    away = False
    while not stop.is_set():
        try:
            run_upkeep(database)
            away = False
        except StoreUnavailableError as error:
            if not away:
                log.warning("upkeep waits: %s", error)
            away = True
        except Exception:
            # A fault in one round must not end the thread that takes trials back from lost workers.
            log.exception("upkeep failed; it is tried again in %g s", seconds)
        stop.wait(seconds)
