"""The optimizer process: a thin loop that keeps every active study's queue of suggestions filled and fresh.

Nothing that matters is remembered between two steps: each reads the records, proposes, and writes under the
generation of its lease on the study. So a take-over is an ordinary step of another process, and an owner that lost
its lease while it fitted a model writes nothing. No transaction is open while a model is fitted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection

from ..errors import NotFoundError, StoreUnavailableError
from ..store import Database, studies, study_fault, trials, workers
from ..store.notifications import Channel, Listener
from ..store.studies import StudyRow
from .importance import ImportanceKeeper
from .suggestion_queue import SuggestionQueue

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15.0
"""Validity of a generator lease; it is renewed three times in that time, also while a model is fitted."""
STUCK_SECONDS: Final = 600.0
"""A step that takes longer counts as stuck: its lease is not renewed any more and another process takes over."""
SETBACK_SECONDS: Final = 30.0
"""How long a study that raised an unexpected error is left to others."""
LEAST_SECONDS: Final = 0.05
"""Between the beginnings of two rounds, however many workers find no trial."""
STOP_SECONDS: Final = 0.25
"""How soon a process with nothing to do sees that it should end."""
QUIET_SECONDS: Final = 15.0
"""A study in which nothing has changed gets a turn this often nevertheless: no oversight of ours lets it starve."""


def run(database: Database, *, owner: str, stop: threading.Event, poll_seconds: float = 0.25) -> None:
    """Serve all active studies until `stop` is set, then give their leases back.

    `owner` must be unique among the running processes. An unreachable database is waited for. Where there is nothing to
    do it looks again after `poll_seconds`, or as soon as a worker has found no trial.
    """
    loop = _Loop(database, owner)
    wanted = database.listen(Channel.WANTED)
    try:
        while not stop.is_set():
            began = time.monotonic()
            if not loop.round() and _is_wanted(wanted, stop, poll_seconds):
                stop.wait(began + LEAST_SECONDS - time.monotonic())
    finally:
        wanted.close()
        loop.end()


def _is_wanted(wanted: Listener, stop: threading.Event, seconds: float) -> bool:
    """Wait for a worker that finds no trial, for `stop`, or at most `seconds`; return whether there was a worker."""
    ends = time.monotonic() + seconds
    while not stop.is_set() and (left := ends - time.monotonic()) > 0:
        if wanted.wait(min(left, STOP_SECONDS)):
            return True
    return False


class _Loop:
    """Takes turns over the studies that this process serves."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._queues: dict[int, SuggestionQueue] = {}
        self._set_back: dict[int, float] = {}
        self._keeper = _LeaseKeeper(database, owner)
        self._importances = ImportanceKeeper(database, owner)
        self._served: set[int] = set()
        self._ended: set[int] = set()
        """Studies that were served, and are asked once more what matters in them."""
        self._quiet: dict[int, tuple[object, float]] = {}
        """What a study and the workers looked like when there was nothing to do for it, and until when that holds."""

    def round(self) -> bool:
        """Take one step in every active study; return whether any did something."""
        try:
            with self._database.transaction() as connection:
                found = studies.list_unfinished(connection)
                alive = _alive(connection)
            self._keeper.serve(self._queues)
            active = [study for study in found if study.is_searching]
            for study_id in self._queues.keys() - {study.id for study in active}:
                self._give_up(study_id)
            # A list, so that one study's work does not keep the others from their turn.
            return any([self._serve(study, alive) for study in active]) or self._keep_importance(found)
        except StoreUnavailableError:
            return False  # the store has said so

    def end(self) -> None:
        """Give all leases back."""
        self._keeper.end()
        for study_id in list(self._queues):
            self._give_up(study_id)

    def _serve(self, study: StudyRow, alive: object) -> bool:
        looks = _looks(study), alive
        is_ours = study.id in self._queues and study.generator_owner == self._owner and study.fault is None
        known, until = self._quiet.get(study.id, (None, 0.0))
        now = time.monotonic()
        if (is_ours and known == looks and now < until) or self._set_back.get(study.id, 0.0) > now:
            return False
        self._quiet.pop(study.id, None)
        with self._database.transaction() as connection:
            generation = studies.acquire_generator(connection, study.id, self._owner, LEASE_SECONDS)
            demand = trials.demand(connection, study.id) if generation is not None else 0
        if generation is None:
            self._queues.pop(study.id, None)
            return False
        if study.id not in self._queues:
            logger.info("study %s: served by %s (generation %d)", study.name, self._owner, generation)
            self._queues[study.id] = SuggestionQueue(self._database, self._owner)
            self._served.add(study.id)
        self._keeper.serve(self._queues)
        try:
            has_acted = self._queues[study.id].step(study, generation=generation, demand=demand)
            if study.fault is not None:
                with self._database.transaction() as connection:
                    # With an optimizer, nobody needs what proposes without one.
                    study_fault.over(connection, study.id, study.fault, study_fault.Part.OPTIMIZER)
                    study_fault.over(connection, study.id, study.fault, study_fault.Part.FALLBACK)
            if not has_acted:
                self._quiet[study.id] = looks, time.monotonic() + QUIET_SECONDS
            return has_acted
        except StoreUnavailableError:
            raise
        except Exception as error:
            # A defect met by one study must not end the service of the others.
            self._set_back[study.id] = time.monotonic() + SETBACK_SECONDS
            self._give_up(study.id)
            if study_fault.note_apart(self._database, study.id, study_fault.Part.OPTIMIZER, error):
                logger.exception("study %s: tried again every %g s after an error", study.name, SETBACK_SECONDS)
            return False

    def _keep_importance(self, found: Sequence[StudyRow]) -> bool:
        """Compute what matters in one study where that is due: those that are served, and those that were and ended.

        It takes seconds, so it is done when no suggestion is missing, and for one study before all get their turn
        again: workers meanwhile take what is in the queues.
        """
        self._ended |= self._served - {study.id for study in found}
        self._served -= self._ended
        known = [study for study in found if study.id in self._queues]
        if any(self._keep_importance_of(study) for study in known):
            return True
        for study in self._rows(self._ended) if self._ended else ():
            is_computed = self._keep_importance_of(study)
            self._ended.discard(study.id)
            if is_computed:
                return True
        self._ended.clear()
        return False

    def _rows(self, study_ids: Collection[int]) -> list[StudyRow]:
        """Return the studies that still exist."""
        found = []
        with self._database.transaction() as connection:
            for study_id in study_ids:
                with suppress(NotFoundError):
                    found.append(studies.get_by_id(connection, study_id))
        return found

    def _keep_importance_of(self, study: StudyRow) -> bool:
        try:
            return self._importances.keep(study)
        except StoreUnavailableError:
            raise
        except Exception:
            # What people read must not keep the process from serving.
            logger.exception("study %s: its importances could not be computed", study.name)
            return False

    def _give_up(self, study_id: int) -> None:
        self._queues.pop(study_id, None)
        self._keeper.serve(self._queues)
        try:
            with self._database.transaction() as connection:
                studies.release_generator(connection, study_id, self._owner)
        except StoreUnavailableError as error:
            logger.warning("a generator lease was not given back and expires by itself: %s", error)


def _looks(study: StudyRow) -> object:
    """Return what of a study decides whether a suggestion is missing or stale."""
    counts = tuple(sorted(study.counts.items()))
    return (
        study.spec.budget,
        counts,
        study.held,
        study.replicates,
        study.enqueued,
        len(study.guesses),
        study.generator_owner,
    )


def _alive(connection: Connection) -> object:
    """Return what of the living workers decides how many suggestions are wanted, and for which devices."""
    return frozenset(
        (row.name, row.study, row.device, row.gpu_name, row.memory_bytes, row.quarantined_at)
        for row in workers.list_all(connection)
        if row.seconds_since_seen < workers.ALIVE_SECONDS
    )


class _LeaseKeeper:
    """Renews the generator leases from a thread of its own while the loop fits a model."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._lock = threading.Lock()
        self._studies: frozenset[int] = frozenset()
        self._last_sign = time.monotonic()
        self._is_away = False
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
            self._is_away = False
        except StoreUnavailableError as error:
            if not self._is_away:
                logger.warning("generator leases were not renewed: %s", error)
            self._is_away = True
