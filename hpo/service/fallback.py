"""Trials for workers while no optimizer serves a study: what a person asked for, else the next Sobol point that fits.

The suggestion goes in under a generator lease of our own, so an optimizer that comes back meanwhile and this process
can never both add one.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ..errors import UnusableStudyError
from ..optimizer import create_optimizer
from ..spec.tasks import DEFAULT_KIND
from ..store import lifecycle, studies, study_fault, trials
from ..store.study_row import NO_OPTIMIZER, StudyRow
from ..trial import ENQUEUED, Suggestion, TrialRecord, TrialState
from .fleet import read_fleet

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15.0
"""More than a process needs that makes its first proposal on a busy machine: after it, what is proposed is refused."""
WARNING_SECONDS: Final = 600.0
"""The log says of each study at most this often that it has no optimizer."""
SETBACK_SECONDS: Final = 30.0
"""How long a study for which this failed is left alone."""
GENERATOR: Final = "sobol (fallback)"
_ACTIVE: Final = text("""
SELECT id, COALESCE(generator_expires_at > clock_timestamp(), false) AS served
FROM study
WHERE state = 'active' AND budget_reached_at IS NULL AND search_ended_at IS NULL
  AND (CAST(:name AS text) IS NULL OR name = :name) AND task_kind = ANY (CAST(:task_kinds AS text[]))
  AND gpus <= :gpus AND nodes = :nodes
ORDER BY id
""")


class Fallback:
    """Remembers for how long each study has left its workers without a trial and without an optimizer."""

    def __init__(self, *, after_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._after_seconds = after_seconds
        self._clock = clock
        self._starving_since: dict[int, float] = {}
        self._warned_at: dict[int, float] = {}
        self._set_back: dict[int, float] = {}
        self._lock = threading.Lock()
        self._owner = f"api:{socket.gethostname()}:{os.getpid()}"

    def suggest(
        self,
        connection: Connection,
        study_name: str | None,
        task_kinds: Sequence[str] = (DEFAULT_KIND,),
        *,
        gpus: int = 1,
        nodes: int = 1,
    ) -> bool:
        """Add a suggestion to the first study of these kinds that has starved for long enough; return whether it was.

        Raises:
            NotFoundError: there is no study of that name.
        """
        wanted = {"name": study_name, "task_kinds": list(task_kinds), "gpus": gpus, "nodes": nodes}
        found = connection.execute(_ACTIVE, wanted).all()
        if study_name is not None and not found:
            with suppress(UnusableStudyError):
                studies.get(connection, study_name)
        return any(self._is_due(row.id, served=row.served) and self._try(connection, row.id) for row in found)

    def _is_due(self, study_id: int, *, served: bool) -> bool:
        with self._lock:
            if served:
                self._starving_since.pop(study_id, None)
                return False
            now = self._clock()
            if self._set_back.get(study_id, now) > now:
                return False
            return now - self._starving_since.setdefault(study_id, now) >= self._after_seconds

    def _warn(self, study: StudyRow) -> None:
        with self._lock:
            now = self._clock()
            if now - self._warned_at.get(study.id, -math.inf) < WARNING_SECONDS:
                return
            self._warned_at[study.id] = now
        logger.warning("study %s: %s", study.name, NO_OPTIMIZER)

    def _try(self, connection: Connection, study_id: int) -> bool:
        """Add a suggestion; one study for which that fails leaves the others theirs, and is tried again later."""
        try:
            with connection.begin_nested():
                is_added = self._add(connection, study_id)
        except DBAPIError:
            raise  # the transaction is lost with it
        except Exception as error:  # a fault of one study must not cost the others their trials
            with self._lock:
                self._set_back[study_id] = self._clock() + SETBACK_SECONDS
            if study_fault.note(connection, study_id, study_fault.Part.FALLBACK, error):
                logger.exception("study %d: no suggestion without an optimizer", study_id)
            return False
        if self._set_back.pop(study_id, None) is not None:
            fault = studies.get_by_id(connection, study_id).fault
            study_fault.over(connection, study_id, fault, study_fault.Part.FALLBACK)
        return is_added

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
            proposals = _proposals(connection, study)
            added = lifecycle.suggest(connection, study_id, proposals, owner=self._owner, generation=generation)
            self._warn(study)
        studies.release_generator(connection, study_id, self._owner)
        return bool(added)


def _proposals(connection: Connection, study: StudyRow) -> list[Suggestion]:
    """Return the next guess of a person, else the next Sobol point that is expected to fit a device.

    Nothing once every configuration of the space was tried.
    """
    optimizer = create_optimizer(study.spec, fleet=read_fleet(connection), guesses=study.guesses)
    optimizer.replay(trials.records(connection, study.id))
    return [
        proposal if proposal.generator == ENQUEUED else replace(proposal, generator=GENERATOR)
        for proposal in optimizer.quick()
    ]


def _has_room(study: StudyRow) -> bool:
    limit = study.spec.budget.trials
    # A suggestion that is there already waits out a backoff, or does not fit the worker that asked.
    return not study.counts.get(TrialState.SUGGESTED) and (limit is None or study.live_trials < limit)
