"""The answers of studies, each computed once for the trials that have ended, and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from ..answer import Answer, answer
from ..trial import RESULT_STATES, TrialRecord
from . import trials
from .study_row import StudyRow

_ENDED: Final = text("""
SELECT study_id, count(*) AS trials, max(finished_at) AS last
FROM trial WHERE study_id = ANY(:study_ids) AND state = ANY(:states) GROUP BY study_id
""")
_MOST: Final = 100_000
"""Number of configurations in the answers that are kept, of all studies together: some 50 MB."""

Key = tuple[int, datetime, int, datetime | None]
"""A study, and the trials of it that have ended: their number, and when the last one did."""

_kept: OrderedDict[Key, Answer | None] = OrderedDict()
_lock = threading.Lock()
_computing: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
"""By study: of many who look when a trial ends, one computes."""


def read(connection: Connection, study: StudyRow) -> Answer | None:
    """Return the answer of a study, None where no trial has a result that keeps the constraints.

    It changes only when a trial ends, so what many readers ask for is computed once.
    """
    return read_all(connection, [study]).get(study.id)


def read_all(connection: Connection, found: Sequence[StudyRow]) -> dict[int, Answer]:
    """Return the answers of those of the studies that have one, by the ids of the studies."""
    by_id = {study.id: study for study in found}
    ended = connection.execute(_ENDED, {"study_ids": list(by_id), "states": list(RESULT_STATES)}).all()
    known = {
        row.study_id: _kept_or_computed(connection, by_id[row.study_id], int(row.trials), row.last) for row in ended
    }
    return {study_id: one for study_id, one in known.items() if one is not None}


def _kept_or_computed(connection: Connection, study: StudyRow, ended: int, last: datetime | None) -> Answer | None:
    key = (study.id, study.created_at, ended, last)
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
