"""The answers of studies, each computed once for the trials that have ended, and kept.

A program waits for the answer of all trials (`read`). A page does not (`at_once`): of a large study it shows the last
answer, says of how many results that is, and finds the new one, which a thread computes, when it asks again. Where that
fails, the page says so, and it is tried again when a further trial has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ..answer import Answer, answer
from ..errors import StoreUnavailableError
from ..trial import RESULT_STATES, TrialRecord
from . import trials
from .database import Database
from .study_fault import said
from .study_row import StudyRow

_ENDED: Final = text("""
SELECT study_id, count(*) FILTER (WHERE state = ANY(:states)) AS trials,
       max(finished_at) FILTER (WHERE state = ANY(:states)) AS last,
       count(*) FILTER (WHERE state = 'withdrawn') AS taken_out
FROM trial
WHERE study_id = ANY(:study_ids)
  -- Without suggestions that nobody has ever claimed.
  AND (state = ANY(:states) OR state = 'withdrawn' AND (attempt > 0 OR origin IS NOT NULL))
GROUP BY study_id HAVING count(*) FILTER (WHERE state = ANY(:states)) > 0
""")
_MOST: Final = 100_000
"""Number of configurations in the answers that are kept, of all studies together: some 50 MB."""
LARGE: Final = 2_000
"""A page does not wait for the answers of so many results or more, of one study or of several together: with as many it
takes about half a second of CPU."""
_REST: Final = 4.0
"""A thread that computes answers for pages rests this many times as long as it took, before the study's next one."""

Key = tuple[int, datetime, int, int, datetime | None]
"""A study, how many of its ended trials were taken out, how many have a result, and when the last of these ended."""

_kept: OrderedDict[Key, Answer | None] = OrderedDict()
_lock = threading.Lock()
_computing: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
"""By study: of many who look when a trial ends, one computes."""
_beside: dict[int, float] = {}
"""By study: when a thread may compute its answer again, on the monotonic clock; infinite while one does."""
_failed: dict[int, tuple[Key, str]] = {}
"""By study: which answer a thread could not compute, and why."""
_turn: Final = threading.Lock()
"""One thread at a time: the calls of workers need the interpreter too."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The answer of a study as far as it is known at once."""

    answer: Answer | None
    """None where no trial has a result that keeps the constraints, and where none has been computed yet."""
    counted: int
    """Of how many results it is."""
    results: int
    """How many there are."""
    is_current: bool
    """Whether it is the answer of all results; else that one is being computed, or could not be."""
    failure: str | None = None
    """Why it could not be computed; None where it is, or is being computed."""


_NOTHING: Final = Shown(answer=None, counted=0, results=0, is_current=True)


def read(connection: Connection, study: StudyRow) -> Answer | None:
    """Return the answer of a study, None where no trial has a result that keeps the constraints.

    It changes only when a trial ends, so what many readers ask for is computed once.
    """
    return read_all(connection, [study]).get(study.id)


def read_all(connection: Connection, found: Sequence[StudyRow]) -> dict[int, Answer]:
    """Return the answers of those of the studies that have one, by the ids of the studies."""
    by_id = {study.id: study for study in found}
    known = {key[0]: _kept_or_computed(connection, by_id[key[0]], key) for key in _keys(connection, found)}
    return {study_id: one for study_id, one in known.items() if one is not None}


def at_once(connection: Connection, found: Sequence[StudyRow], database: Database) -> dict[int, Shown]:
    """Return what is known of the answers of studies now, by their ids, without computing that of a large one.

    Of many small ones that are new, as after the start of a server, it computes the first only.

    Args:
        database: from which a thread reads what it computes.
    """
    by_id = {study.id: study for study in found}
    known, room = dict.fromkeys(by_id, _NOTHING), LARGE
    for key in _keys(connection, found):
        study, results = by_id[key[0]], key[3]
        if _is_kept(key):
            known[study.id] = _current(connection, study, key)
        elif results < room and not _has_failed(key) and _is_computed(connection, study, key):
            known[study.id] = _current(connection, study, key)
            room -= results
        else:
            known[study.id] = _last(study, key, database)
    return known


def _keys(connection: Connection, found: Sequence[StudyRow]) -> list[Key]:
    """Return the keys of the answers of those studies that have results."""
    created = {study.id: study.created_at for study in found}
    rows = connection.execute(_ENDED, {"study_ids": list(created), "states": list(RESULT_STATES)})
    return [(row.study_id, created[row.study_id], int(row.taken_out), int(row.trials), row.last) for row in rows]


def _is_kept(key: Key) -> bool:
    with _lock:
        return key in _kept


def _has_failed(key: Key) -> bool:
    with _lock:
        return _failed.get(key[0], (None, ""))[0] == key


def _current(connection: Connection, study: StudyRow, key: Key) -> Shown:
    results = key[3]
    return Shown(answer=_kept_or_computed(connection, study, key), counted=results, results=results, is_current=True)


def _last(study: StudyRow, key: Key, database: Database) -> Shown:
    """Return the last answer of a study, and have the new one computed unless that has failed."""
    results = key[3]
    with _lock:
        # The answer before a trial was taken out may name it as the best.
        earlier = next((known for known in _kept if known[:3] == key[:3] and known[3] <= results), None)
        last = None if earlier is None else _kept[earlier]
        failed, failure = _failed.get(study.id, (None, None))
    counted = 0 if earlier is None else earlier[3]
    if failed == key:
        return Shown(answer=last, counted=counted, results=results, is_current=False, failure=failure)
    _begin_beside(study, database)
    return Shown(answer=last, counted=counted, results=results, is_current=False)


def _begin_beside(study: StudyRow, database: Database) -> None:
    """Have a thread compute an answer, unless one does or has just done so for this study."""
    with _lock:
        if _beside.get(study.id, 0.0) > time.monotonic():
            return
        _beside[study.id] = float("inf")
    try:
        # A server that ends does not wait for it.
        threading.Thread(target=_compute, args=(study, database), name=f"answer {study.id}", daemon=True).start()
    except RuntimeError as error:  # no thread
        _log.warning("the answer of the study %s is not computed now: %s", study.name, error)
        with _lock:
            _beside[study.id] = time.monotonic() + _REST


def _compute(study: StudyRow, database: Database) -> None:
    took = 1.0
    try:
        with _turn:
            begun = time.monotonic()
            try:
                _compute_latest(study, database)
            finally:
                took = time.monotonic() - begun
    except StoreUnavailableError as error:
        _log.warning("the answer of the study %s was not computed: %s", study.name, error)
    finally:
        with _lock:
            _beside[study.id] = time.monotonic() + _REST * took


def _compute_latest(study: StudyRow, database: Database) -> None:
    """Compute the answer of all trials that have ended by now, or note why that failed."""
    with database.transaction() as connection:
        # Others may have had their turn first, and more trials have ended since.
        for key in _keys(connection, [study]):
            _is_computed(connection, study, key)


def _is_computed(connection: Connection, study: StudyRow, key: Key) -> bool:
    """Compute an answer, or note why that failed; return whether there is one."""
    try:
        _kept_or_computed(connection, study, key)
    except DBAPIError:
        raise  # the transaction is lost with it, and it says nothing of the answer
    except Exception as error:
        # Whatever it is, the page is to say it; the next trial that ends may change it.
        _note_failure(study, key, error)
        return False
    with _lock:
        _failed.pop(study.id, None)
    return True


def _note_failure(study: StudyRow, key: Key, error: Exception) -> None:
    with _lock:
        _, before = _failed.get(study.id, (None, ""))
        _failed[study.id] = key, said(error)
    if not before.startswith(type(error).__name__):
        _log.error("the answer of the study %s could not be computed", study.name, exc_info=error)


def _kept_or_computed(connection: Connection, study: StudyRow, key: Key) -> Answer | None:
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
        is_ours = _computing[study.id]
    with is_ours:
        with _lock:
            if key in _kept:
                return _kept[key]
        found = answer(study.spec, trials.records(connection, study.id))
        with _lock:
            _keep(key, found)
    return found


def _keep(key: Key, found: Answer | None) -> None:
    for old in [known for known in _kept if known[:2] == key[:2]]:
        del _kept[old]
    _kept[key] = found
    size = sum(_size(one) for one in _kept.values())
    while size > _MOST and len(_kept) > 1:
        size -= _size(_kept.popitem(last=False)[1])


def _size(found: Answer | None) -> int:
    return 1 if found is None else len(found.candidates)


def best(connection: Connection, study: StudyRow) -> TrialRecord | None:
    """Return the trial that stands for the best configuration of a study, None where there is none yet."""
    found = read(connection, study)
    return None if found is None else trials.get(connection, study.id, found.winner.chosen)
