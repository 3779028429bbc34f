"""Trials for workers while no optimizer serves a study: the next point of a Sobol sequence.

The suggestion goes in under a generator lease of our own, so an optimizer that comes back meanwhile and this process
can never both add one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from hpo.optimizer import sobol
from hpo.store import lifecycle, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import StudyState, TrialState

LEASE_SECONDS: Final = 5.0


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
        rows = studies.list_all(connection) if study_name is None else [studies.get(connection, study_name)]
        return any(self._is_due(connection, row) and self._add(connection, row) for row in rows)

    def _is_due(self, connection: Connection, study: StudyRow) -> bool:
        served = study.state is not StudyState.ACTIVE or studies.generator_is_alive(connection, study.id)
        with self._lock:
            if served:
                self._starving_since.pop(study.id, None)
                return False
            return self._clock() - self._starving_since.setdefault(study.id, self._clock()) >= self._after_seconds

    def _add(self, connection: Connection, study: StudyRow) -> bool:
        limit = study.spec.budget.trials
        full = study.budget_reached_at is not None or (limit is not None and study.live_trials >= limit)
        # A suggestion that is there already waits out a backoff, or does not fit the worker that asked.
        if full or study.counts.get(TrialState.SUGGESTED):
            return False
        records = trials.records(connection, study.id)
        generation = studies.acquire_generator(connection, study.id, self._owner, LEASE_SECONDS)
        if generation is None:
            return False
        proposals = sobol.suggest(study.spec, [record.params for record in records], 1)
        added = lifecycle.suggest(connection, study.id, proposals, owner=self._owner, generation=generation)
        studies.release_generator(connection, study.id, self._owner)
        return bool(added)
