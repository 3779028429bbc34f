"""The optimizer process: a thin loop that keeps every active study's queue of suggestions filled and fresh.

Nothing that matters is remembered between two steps: each reads the records, proposes, and writes under the
generation of its lease on the study. So a take-over is an ordinary step of another process, and an owner that lost
its lease while it fitted a model writes nothing. No transaction is open while a model is fitted.

Several processes share the studies evenly (`sharing.py`). Whoever has more than its share gives a study back, and the
one whose share it is takes it, under a generation of its own. A study that raises an error in one of them is left to
the others (`setbacks.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection

from ..errors import NotFoundError, StoreUnavailableError
from ..store import Database, generators, optimizers, studies, study_fault, trials, workers
from ..store.notifications import Channel, Listener, announce
from ..store.studies import StudyRow
from ..store.study_fault import Part
from .importance import ImportanceKeeper
from .setbacks import Setbacks
from .sharing import Share
from .suggestion_queue import SuggestionQueue

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15.0
"""Validity of a generator lease; it is renewed three times in that time, also while a model is fitted."""
STUCK_SECONDS: Final = 600.0
"""A step that takes longer counts as stuck: its lease is not renewed any more and another process takes over."""
LEAST_SECONDS: Final = 0.05
"""Between the beginnings of two rounds, however many workers find no trial."""
REST: Final = 4.0
"""After it has read the studies in vain, it rests for so many times as long: at 90,000 trials reading takes 0.4 s. A
worker that finds no trial ends the rest, unless it was such a worker that had it read in vain."""
MOST_REST_SECONDS: Final = 2.0
"""How long a worker waits at most because of others that ask in vain."""
STOP_SECONDS: Final = 0.25
"""How soon a process with nothing to do sees that it should end."""
QUIET_SECONDS: Final = 15.0
"""A study in which nothing has changed gets a turn this often nevertheless: no oversight of ours lets it starve."""


def run(
    database: Database,
    *,
    owner: str,
    stop: threading.Event,
    poll_seconds: float = 0.25,
    on_life: Callable[[], None] = lambda: None,
) -> None:
    """Serve all active studies until `stop` is set, then give their leases back.

    `owner` must be unique among the running processes. An unreachable database is waited for. Where there is nothing to
    do it looks again after `poll_seconds`, or as soon as a worker has found no trial. `on_life` is called before each
    step, so at least every `STUCK_SECONDS` unless one is stuck.
    """
    loop = _Loop(database, owner, on_life, stop)
    leaver = threading.Thread(target=_leave_at, args=(stop, loop), name="leave", daemon=True)
    leaver.start()
    wanted = database.listen(Channel.WANTED)
    is_wanted = False
    try:
        while not stop.is_set():
            began = time.monotonic()
            if loop.round():
                is_wanted = False
                continue
            was_wanted, rest = is_wanted, min(REST * loop.read_seconds, MOST_REST_SECONDS)
            is_wanted = _is_wanted(wanted, stop, max(poll_seconds, rest))
            if is_wanted:
                least = max(LEAST_SECONDS, rest) if was_wanted else LEAST_SECONDS
                stop.wait(began + least - time.monotonic())
    finally:
        wanted.close()
        if stop.is_set():
            leaver.join()
        loop.end()


def _leave_at(stop: threading.Event, loop: _Loop) -> None:
    """Give the studies to the other optimizers as soon as this one should end, although a step may take a while yet."""
    stop.wait()
    loop.leave()


def _is_wanted(wanted: Listener, stop: threading.Event, seconds: float) -> bool:
    """Wait for a worker that finds no trial, for `stop`, or at most `seconds`; return whether there was a worker."""
    ends = time.monotonic() + seconds
    while not stop.is_set() and (left := ends - time.monotonic()) > 0:
        if wanted.wait(min(left, STOP_SECONDS)):
            return True
    return False


class _Loop:
    """Takes turns over the studies that this process serves."""

    def __init__(
        self,
        database: Database,
        owner: str,
        on_life: Callable[[], None] = lambda: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._database = database
        self._owner = owner
        self._stop = stop or threading.Event()
        self._queues: dict[int, SuggestionQueue] = {}
        self._setbacks = Setbacks()
        self._others: frozenset[str] = frozenset()
        """The other optimizers that live."""
        self._failed: dict[int, frozenset[str]] = {}
        """By study, which of those that live it has raised an error in."""
        self._keeper = _LeaseKeeper(database, owner, on_life)
        self._importances = ImportanceKeeper(database, owner)
        self._served: set[int] = set()
        self._ended: set[int] = set()
        """Studies that were served, and are asked once more what matters in them."""
        self.read_seconds = 0.0
        """What the last reading of all studies took."""
        self._quiet: dict[int, tuple[object, float]] = {}
        """What a study and the workers looked like when there was nothing to do for it, and until when that holds."""
        self._share = Share(owner)
        self._stepping: int | None = None
        """The study for which a step is taken now."""
        self._steps = 0
        self._busy_seconds = 0.0

    def round(self) -> bool:
        """Take one step in every active study; return whether any did something."""
        self._keeper.serve(self._queues)
        try:
            began = time.monotonic()
            with self._database.transaction() as connection:
                optimizers.look(
                    connection, self._owner, LEASE_SECONDS, steps=self._steps, busy_seconds=self._busy_seconds
                )
                found = studies.list_unfinished(connection)
                alive = _alive(connection)
                living = optimizers.list_alive(connection)
            self.read_seconds = time.monotonic() - began
            active = [study for study in found if study.is_searching]
            for study_id in self._queues.keys() - {study.id for study in active}:
                self._give_up(study_id)
            self._know_others(active, frozenset(row.owner for row in living))
            self._share.work_out(
                {study.id: study.generator_owner if study.is_served else None for study in active}, living, self._failed
            )
            self._hand_over()
            # A list, so that one study's work does not keep the others from their turn.
            has_acted = any([self._take_turn(study, alive) for study in active])
            return has_acted or (not self._stop.is_set() and self._keep_importance(found))
        except StoreUnavailableError:
            return False  # the store has said so

    def leave(self) -> None:
        """Give all leases back but that of the study for which a step is taken; for another thread than the loop's.

        Whatever the loop begins nevertheless is refused, because it has no lease.
        """
        kept = self._stepping
        self._keeper.leave(kept)
        self._sign_off(lambda connection: studies.release_generators(connection, self._owner, but=kept))

    def end(self) -> None:
        """Give all leases back."""
        self._keeper.end()
        self._queues.clear()
        self._sign_off(lambda connection: studies.release_generators(connection, self._owner))

    def _sign_off(self, release: Callable[[Connection], None]) -> None:
        try:
            with self._database.transaction() as connection:
                release(connection)
        except StoreUnavailableError as error:
            logger.warning("generator leases were not given back and expire by themselves: %s", error)

    def _hand_over(self) -> None:
        """Give the studies beyond the share of this process to those whose they should be."""
        for study_id, owner in self._share.surplus().items():
            if self._queues.pop(study_id, None) is None:
                continue  # of a process of the same name before this one
            logger.info("study %d: handed over to %s", study_id, owner)
            self._served.discard(study_id)
            self._give_up(study_id, is_for_another=True)

    def _look_again(self) -> None:
        """Hand over what is beyond the share of this process, where it has not looked for a while."""
        if not self._share.is_old:
            return
        with self._database.transaction() as connection:
            owners = generators.owners(connection, list(self._share.studies))
            alive = optimizers.list_alive(connection)
        self._share.work_out(owners, alive, self._failed)
        self._hand_over()

    def _know_others(self, active: Sequence[StudyRow], living: frozenset[str]) -> None:
        self._others = living - {self._owner}
        failed = {study.id: study_fault.failed(study.fault, Part.OPTIMIZER, living) for study in active}
        self._failed = {study_id: owners for study_id, owners in failed.items() if owners}

    def _others_may(self, study: StudyRow) -> bool:
        return not self._others <= self._failed.get(study.id, frozenset())

    def _take_turn(self, study: StudyRow, alive: object) -> bool:
        if self._stop.is_set():
            return False
        self._look_again()
        if self._is_with_others(study):
            self._offer(study)
            return False
        return self._serve(study, alive)

    def _offer(self, study: StudyRow) -> None:
        """Let others give a study to this process again, after it has left it to them for long enough."""
        has_failed = self._owner in self._failed.get(study.id, ())
        if has_failed and not self._setbacks.holds(study.id, others_may=True):
            with self._database.transaction() as connection:
                study_fault.over(connection, study.id, study.fault, Part.OPTIMIZER, still=self._others)

    def _is_with_others(self, study: StudyRow) -> bool:
        """Return whether another process serves a study, or is to."""
        if study.is_served and study.generator_owner != self._owner:
            self._queues.pop(study.id, None)  # asking for it again four times a second would cost two statements each
            return True
        return self._share.leaves(study.id)

    def _serve(self, study: StudyRow, alive: object) -> bool:
        looks = _looks(study), alive
        is_ours = study.id in self._queues and study.generator_owner == self._owner and not self._is_over(study)
        known, until = self._quiet.get(study.id, (None, 0.0))
        if is_ours and known == looks and time.monotonic() < until:
            return False
        if self._setbacks.holds(study.id, others_may=self._others_may(study)):
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
            has_acted = self._step(study, generation, demand)
            self._setbacks.over(study.id)
            if self._is_over(study):
                with self._database.transaction() as connection:
                    study_fault.over(connection, study.id, study.fault, Part.OPTIMIZER, still=self._others)
                    study_fault.over(connection, study.id, study.fault, Part.FALLBACK)
            if not has_acted:
                self._quiet[study.id] = looks, time.monotonic() + QUIET_SECONDS
            return has_acted
        except StoreUnavailableError:
            raise
        except Exception as error:
            # A defect met by one study must not end the service of the others.
            others_may = self._others_may(study)
            seconds = self._setbacks.note(study.id, others_may=others_may)
            try:
                # Before others see that nobody serves it: they are to see why.
                is_news = study_fault.note_apart(self._database, study.id, Part.OPTIMIZER, error, by=self._owner)
            finally:
                self._give_up(study.id, is_for_another=others_may)
            if is_news:
                to_whom = "left to another optimizer" if others_may else "left alone"
                logger.exception("study %s: %s for %g s after an error", study.name, to_whom, seconds)
            return False

    def _is_over(self, study: StudyRow) -> bool:
        """Return whether a study has faults that are over once a step succeeds."""
        # With an optimizer, nobody needs what proposes without one.
        return study_fault.is_of(study.fault, Part.OPTIMIZER, still=self._others) or study_fault.is_of(
            study.fault, Part.FALLBACK
        )

    def _step(self, study: StudyRow, generation: int, demand: int) -> bool:
        began, self._stepping = time.monotonic(), study.id
        try:
            has_acted = self._queues[study.id].step(study, generation=generation, demand=demand)
        finally:
            self._stepping = None
            self._busy_seconds += time.monotonic() - began
        self._steps += has_acted
        return has_acted

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

    def _give_up(self, study_id: int, *, is_for_another: bool = False) -> None:
        self._queues.pop(study_id, None)
        self._keeper.serve(self._queues)
        try:
            with self._database.transaction() as connection:
                studies.release_generator(connection, study_id, self._owner)
                if is_for_another:
                    announce(connection, Channel.WANTED)
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

    def __init__(self, database: Database, owner: str, on_life: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._owner = owner
        self._on_life = on_life
        self._lock = threading.Lock()
        self._studies: frozenset[int] = frozenset()
        self._is_leaving = False
        self._last_sign = time.monotonic()
        self._is_away = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="generator-leases", daemon=True)
        self._thread.start()

    def serve(self, study_ids: Collection[int]) -> None:
        """Renew these and no others from now on; a sign of life of the loop."""
        with self._lock:
            served = frozenset(study_ids)
            self._studies = self._studies & served if self._is_leaving else served
            self._last_sign = time.monotonic()
        self._on_life()

    def leave(self, study_id: int | None) -> None:
        """Renew the lease of this study alone from now on, and no other again."""
        with self._lock:
            self._is_leaving = True
            self._studies &= {study_id}

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
                if not self._is_leaving:
                    optimizers.renew(connection, self._owner, LEASE_SECONDS)
                for study_id in self._studies:
                    studies.acquire_generator(connection, study_id, self._owner, LEASE_SECONDS)
            self._is_away = False
        except StoreUnavailableError as error:
            if not self._is_away:
                logger.warning("generator leases were not renewed: %s", error)
            self._is_away = True
