"""Trials for workers while no optimizer serves a study: what a person asked for, else the next Sobol point that fits.

The suggestion goes in under a generator lease of our own, so an optimizer that comes back meanwhile and this process
can never both add one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, text

from ..optimizer import create_optimizer
from ..store import lifecycle, studies, trials
from ..store.studies import StudyRow
from ..trial import ENQUEUED, Suggestion, TrialRecord, TrialState
from .fleet import read_fleet

LEASE_SECONDS: Final = 5.0
GENERATOR: Final = "sobol (fallback)"
_ACTIVE: Final = text("""
SELECT id, COALESCE(generator_expires_at > clock_timestamp(), false) AS served
FROM study
WHERE state = 'active' AND budget_reached_at IS NULL AND (CAST(:name AS text) IS NULL OR name = :name)
ORDER BY id
""")


class Fallback:
    """Remembers for how long each study has left its workers without a trial and without an optimizer."""

    def __init__(self, *, after_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._after_seconds = after_seconds
        self._clock = clock
        self._starving_since: dict[int, float] = {}
        self._lock = threading.Lock()
        self._owner = f"api:{socket.gethostname()}:{os.getpid()}"

    def suggest(self, connection: Connection, study_name: str | None) -> bool:
        """Add a suggestion to the first study that has starved for long enough; say whether one was added.

        Raises:
            NotFoundError: there is no study of that name.
        """
        found = connection.execute(_ACTIVE, {"name": study_name}).all()
        if study_name is not None and not found:
            studies.get(connection, study_name)
        return any(self._is_due(row.id, served=row.served) and self._add(connection, row.id) for row in found)

    def _is_due(self, study_id: int, *, served: bool) -> bool:
        with self._lock:
            if served:
                self._starving_since.pop(study_id, None)
                return False
            now = self._clock()
            return now - self._starving_since.setdefault(study_id, now) >= self._after_seconds

    def _add(self, connection: Connection, study_id: int) -> bool:
        if not _has_room(studies.get_by_id(connection, study_id)):
            return False
        generation = studies.acquire_generator(connection, study_id, self._owner, LEASE_SECONDS)
        if generation is None:
            return False
        # Only from here on is nobody else adding: what was read before may be out of date.
        study = studies.get_by_id(connection, study_id)
        added: Sequence[TrialRecord] = ()
        if _has_room(study):
            proposal = _proposal(connection, study)
            added = lifecycle.suggest(connection, study_id, [proposal], owner=self._owner, generation=generation)
        studies.release_generator(connection, study_id, self._owner)
        return bool(added)


def _proposal(connection: Connection, study: StudyRow) -> Suggestion:
    """Return the next guess of a person, else the next Sobol point that is expected to fit a device."""
    optimizer = create_optimizer(study.spec, fleet=read_fleet(connection), guesses=study.guesses)
    optimizer.replay(trials.records(connection, study.id))
    (proposal,) = optimizer.quick()
    return proposal if proposal.generator == ENQUEUED else replace(proposal, generator=GENERATOR)


def _has_room(study: StudyRow) -> bool:
    limit = study.spec.budget.trials
    # A suggestion that is there already waits out a backoff, or does not fit the worker that asked.
    return not study.counts.get(TrialState.SUGGESTED) and (limit is None or study.live_trials < limit)
