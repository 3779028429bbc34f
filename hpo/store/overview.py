"""What pages show of a study beside its row: the latest events and the latest trials that ended, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, RowMapping, text

from ..trial import TrialRecord, TrialState
from . import trials
from .events import EventRow

_SCANNED: Final = 2_000
"""Of so many latest events the page shows some: each epoch of each trial is an event too."""
# Not `list_since`: a page shows what is known now, and continues from nothing.
_EVENTS: Final = text("""
SELECT recent.id, recent.study_id, recent.trial_id, recent.kind, recent.actor, recent.detail, recent.created_at,
       trial.number
FROM (SELECT * FROM event WHERE study_id = :study_id ORDER BY transaction_id DESC, id DESC LIMIT :scanned) AS recent
LEFT JOIN trial ON trial.id = recent.trial_id
WHERE recent.kind <> 'trial.measured'
ORDER BY recent.transaction_id DESC, recent.id DESC
LIMIT :limit
""")
_EVENTS_OF_TRIAL: Final = text("""
SELECT event.id, event.study_id, event.trial_id, event.kind, event.actor, event.detail, event.created_at, trial.number
FROM event JOIN trial ON trial.id = event.trial_id
WHERE event.trial_id = :trial_id
ORDER BY event.transaction_id DESC, event.id DESC
LIMIT :limit
""")
_ENDED: Final = text("""
SELECT id FROM trial WHERE study_id = :study_id AND state = :state
ORDER BY finished_at DESC NULLS LAST, id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An event, and the number of the trial that it is about."""

    event: EventRow
    number: int | None


def latest_events(connection: Connection, study_id: int, *, limit: int) -> list[Happening]:
    """Return the latest events of a study, the last one first, without those of single epochs."""
    values = {"study_id": study_id, "limit": limit, "scanned": _SCANNED}
    return [_happening(row) for row in connection.execute(_EVENTS, values).mappings()]


def events_of_trial(connection: Connection, trial_id: int, *, limit: int) -> list[Happening]:
    """Return the latest events of a trial, the last one first."""
    found = connection.execute(_EVENTS_OF_TRIAL, {"trial_id": trial_id, "limit": limit}).mappings()
    return [_happening(row) for row in found]


def latest_ended(connection: Connection, study_id: int, state: TrialState, *, limit: int) -> Sequence[TrialRecord]:
    """Return the trials that ended last in a state, the last one first."""
    values = {"study_id": study_id, "state": state, "limit": limit}
    ids = list(connection.execute(_ENDED, values).scalars())
    found = {record.id: record for record in trials.by_ids(connection, ids)}
    return [found[trial_id] for trial_id in ids if trial_id in found]


def _happening(row: RowMapping) -> Happening:
    event = EventRow(**{name: row[name] for name in EventRow.__dataclass_fields__})
    return Happening(event=event, number=row["number"])
