"""What pages show of a study beside its row: the latest events and the latest trials that ended, bounded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, RowMapping, text

from ..trial import RESULT_STATES, TrialRecord, TrialState
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
# The end of a curve is read only where the final values are not those of the trial: 2,000 sorts take half a second.
_RESULTS: Final = text("""
SELECT trial.*, COALESCE(ends.steps, '{}') AS curve, study.spec -> 'objectives' AS objectives,
       ARRAY[]::text[] AS lost_on, NULL::jsonb AS progress, NULL::timestamptz AS progress_at
FROM trial
JOIN study ON study.id = trial.study_id
CROSS JOIN LATERAL (
    SELECT max(COALESCE((objective ->> 'last_epochs')::int, 1)) AS steps
    FROM jsonb_array_elements(study.spec -> 'objectives') AS objective
) AS most
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(step::text, metrics) AS steps
    FROM (SELECT DISTINCT ON (step) step, measurement.metrics FROM measurement
          WHERE (most.steps > 1 OR trial.metrics IS NULL) AND measurement.trial_id = trial.id
          ORDER BY step DESC, measurement.attempt DESC LIMIT most.steps) AS last
) AS ends
WHERE trial.study_id = :study_id AND trial.number > :after AND trial.state = ANY(:states)
ORDER BY trial.number LIMIT :limit
""")


_VERSIONS: Final = text("""
SELECT number, dataset_version FROM trial
WHERE study_id = :study_id AND number = ANY(:numbers) AND dataset_version IS NOT NULL
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


def dataset_versions(connection: Connection, study_id: int, numbers: Collection[int]) -> dict[int, str]:
    """Return the version of the data that each of these trials was trained on, by number, where it is known."""
    found = connection.execute(_VERSIONS, {"study_id": study_id, "numbers": list(numbers)})
    return {row.number: row.dataset_version for row in found}


def results(connection: Connection, study_id: int, *, after: int, limit: int) -> list[TrialRecord]:
    """Return the trials with a result whose number is greater than `after`, by number, with their final values.

    What else `trials.page` reads of them is left out, since it takes long.
    """
    values = {"study_id": study_id, "after": after, "states": [*RESULT_STATES], "limit": limit}
    return [trials.from_row(row) for row in connection.execute(_RESULTS, values).mappings()]


def latest_ended(connection: Connection, study_id: int, state: TrialState, *, limit: int) -> Sequence[TrialRecord]:
    """Return the trials that ended last in a state, the last one first."""
    values = {"study_id": study_id, "state": state, "limit": limit}
    ids = list(connection.execute(_ENDED, values).scalars())
    found = {record.id: record for record in trials.by_ids(connection, ids)}
    return [found[trial_id] for trial_id in ids if trial_id in found]


def _happening(row: RowMapping) -> Happening:
    event = EventRow(**{name: row[name] for name in EventRow.__dataclass_fields__})
    return Happening(event=event, number=row["number"])
