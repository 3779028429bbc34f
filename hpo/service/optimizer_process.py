"""The optimizer process: a thin loop that keeps every active study's queue of suggestions filled and fresh.

Nothing that matters is remembered between two steps: each reads the records, proposes, and writes under the
generation of its lease on the study. So a take-over is an ordinary step of another process, and an owner that lost
its lease while it fitted a model writes nothing. No transaction is open while a model is fitted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import Final

from ..errors import StoreUnavailableError
from ..store import Database, studies, trials
from ..store.studies import StudyRow
from ..trial import StudyState
from .suggestion_queue import SuggestionQueue

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15.0
"""Validity of a generator lease; it is renewed three times in that time, also while a model is fitted."""
STUCK_SECONDS: Final = 600.0
"""A step that takes longer counts as stuck: its lease is not renewed any more and another process takes over."""
SETBACK_SECONDS: Final = 30.0
"""How long a study that raised an unexpected error is left to others."""


def run(database: Database, *, owner: str, stop: threading.Event, poll_seconds: float = 0.5) -> None:
    """Serve all active studies until `stop` is set, then give their leases back.

    `owner` must be unique among the running processes. An unreachable database is waited for.
    """
    loop = _Loop(database, owner)
    try:
        while not stop.is_set():
            if not loop.round():
                stop.wait(poll_seconds)
    finally:
        loop.end()


class _Loop:
    """Takes turns over the studies that this process serves."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._queues: dict[int, SuggestionQueue] = {}
        self._set_back: dict[int, float] = {}
        self._keeper = _LeaseKeeper(database, owner)

    def round(self) -> bool:
        """Take one step in every active study; return whether any did something."""
        try:
            with self._database.transaction() as connection:
                found = studies.list_all(connection)
            active = [study for study in found if study.state is StudyState.ACTIVE and not study.budget_reached_at]
            for study_id in self._queues.keys() - {study.id for study in active}:
                self._give_up(study_id)
            # A list, so that one study's work does not keep the others from their turn.
            return any([self._serve(study) for study in active])
        except StoreUnavailableError as error:
            logger.warning("trying again: %s", error)
            return False

    def end(self) -> None:
        """Give all leases back."""
        self._keeper.end()
        for study_id in list(self._queues):
            self._give_up(study_id)

    def _serve(self, study: StudyRow) -> bool:
        if self._set_back.get(study.id, 0.0) > time.monotonic():
            return False
        with self._database.transaction() as connection:
            generation = studies.acquire_generator(connection, study.id, self._owner, LEASE_SECONDS)
            demand = trials.demand(connection, study.id) if generation is not None else 0
        if generation is None:
            self._queues.pop(study.id, None)
            return False
        if study.id not in self._queues:
            logger.info("study %s: served by %s (generation %d)", study.name, self._owner, generation)
            self._queues[study.id] = SuggestionQueue(self._database, self._owner)
        self._keeper.serve(self._queues)
        try:
            return self._queues[study.id].step(study, generation=generation, demand=demand)
        except StoreUnavailableError:
            raise
        except Exception:
            # A defect met by one study must not end the service of the others.
            logger.exception("study %s: left alone for %g s after an error", study.name, SETBACK_SECONDS)
            self._set_back[study.id] = time.monotonic() + SETBACK_SECONDS
            self._give_up(study.id)
            return False

    def _give_up(self, study_id: int) -> None:
        self._queues.pop(study_id, None)
        self._keeper.serve(self._queues)
        try:
            with self._database.transaction() as connection:
                studies.release_generator(connection, study_id, self._owner)
        except StoreUnavailableError as error:
            logger.warning("a generator lease was not given back and expires by itself: %s", error)


class _LeaseKeeper:
    """Renews the generator leases from a thread of its own while the loop fits a model."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._lock = threading.Lock()
        self._studies: frozenset[int] = frozenset()
        self._last_sign = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="generator-leases", daemon=True)
        self._thread.start()

    def serve(self, study_ids: Collection[int]) -> None:
        """Renew these and no others from now on; a sign of life of the loop."""
        with self._lock:
            self._studies = frozenset(study_ids)
            self._last_sign = time.monotonic()

    def end(self) -> None:
        """Stop renewing."""
        self._ended.set()
        self._thread.join()

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / 3):
            # The lock is held so that a lease which the loop gives back is not taken again.
            with self._lock:
                if time.monotonic() - self._last_sign < STUCK_SECONDS:
                    self._renew()

    def _renew(self) -> None:
        try:
            with self._database.transaction() as connection:
                for study_id in self._studies:
                    studies.acquire_generator(connection, study_id, self._owner, LEASE_SECONDS)
        except StoreUnavailableError as error:
            logger.warning("generator leases were not renewed: %s", error)
