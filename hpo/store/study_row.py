"""A study as it stands: the row with what its trials add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select, text

from ..errors import NotFoundError
from ..spec import StudySpec, stored_spec
from ..trial import Params, StudyState, TrialState
from .tables import study

_READ: Final = """
SELECT study.*, totals.counts, totals.held, totals.enqueued, totals.gpu_seconds, totals.saved_seconds,
       totals.first_started_at,
       EXTRACT(epoch FROM clock_timestamp() - totals.first_started_at) AS wall_seconds
FROM study
CROSS JOIN LATERAL (
    SELECT COALESCE(jsonb_object_agg(state, trials), '{{}}') AS counts,
           COALESCE(sum(gpu_seconds), 0) AS gpu_seconds,
           COALESCE(sum(held), 0) AS held,
           COALESCE(sum(enqueued), 0) AS enqueued,
           COALESCE(sum(saved_seconds), 0) AS saved_seconds,
           min(started_at) AS first_started_at
    FROM (
        SELECT state, count(*) AS trials, sum(gpu_seconds) AS gpu_seconds, min(started_at) AS started_at,
               count(*) FILTER (WHERE held) AS held,
               count(*) FILTER (WHERE generator = 'enqueued') AS enqueued,
               sum(gpu_seconds / epochs_done * ((study.spec #>> '{{task,epochs}}')::int - epochs_done)) FILTER (
                   WHERE state = 'stopped' AND NOT cancel_requested AND epochs_done > 0
                     AND (study.state <> 'stopped' OR finished_at < study.state_changed_at)
                     AND finished_at < COALESCE(study.budget_reached_at, 'infinity')
               ) AS saved_seconds
        FROM trial WHERE trial.study_id = study.id GROUP BY state
    ) AS by_state
) AS totals
{where}
ORDER BY study.id
"""
_ALL: Final = text(_READ.format(where=""))
_BY_NAME: Final = text(_READ.format(where="WHERE study.name = :name"))
_BY_ID: Final = text(_READ.format(where="WHERE study.id = :study_id"))
_UNFINISHED: Final = text(_READ.format(where="WHERE study.state <> 'completed' AND study.finished_at IS NULL"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """A study as it stands."""

    id: int
    name: str
    spec: StudySpec
    state: StudyState
    state_reason: str | None
    """One sentence for a person: why it was paused or has ended."""
    created_at: datetime
    finished_at: datetime | None
    budget_reached_at: datetime | None
    """Set once GPU hours, wall hours or the target are reached: what runs is ending, nothing new begins."""
    gpu_seconds_spent: float
    """Device time of all attempts of all trials, as reported so far."""
    gpu_seconds_saved: float
    """Device time of the epochs that early stopping has spared: each trial's, at what its own epochs have cost."""
    wall_seconds_spent: float
    """Time since the first trial was claimed."""
    counts: Mapping[TrialState, int] = field(default_factory=dict)
    """Number of trials in each state that has any."""
    held: int = 0
    """Paused trials that the stopping rule keeps from being claimed until they are promoted."""
    guesses: Sequence[Params] = ()
    """What people asked to be tried, those that became trials included; each has all values or some."""
    enqueued: int = 0
    """How many of the guesses, from the first on, have become trials."""
    generator_owner: str | None = None
    """The optimizer process that serves the study, or served it last."""

    @property
    def live_trials(self) -> int:
        """The trials that count against budget.trials: all that were not withdrawn."""
        return sum(self.counts.values()) - self.counts.get(TrialState.WITHDRAWN, 0)

    @property
    def waiting_guesses(self) -> Sequence[Params]:
        """The guesses that have not become trials yet."""
        return self.guesses[self.enqueued :]


def get(connection: Connection, name: str) -> StudyRow:
    """Read a study by its name.

    Raises:
        NotFoundError: there is none; names what is near.
    """
    row = connection.execute(_BY_NAME, {"name": name}).mappings().one_or_none()
    if row is None:
        known = list(connection.execute(select(study.c.name).order_by(study.c.name)).scalars())
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`hpo study list` shows what there is"
        raise NotFoundError(f"there is no study {name!r}; {hint}")
    return _row(row)


def get_by_id(connection: Connection, study_id: int) -> StudyRow:
    """Read a study by its id.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = connection.execute(_BY_ID, {"study_id": study_id}).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no study with the id {study_id}; it was probably deleted")
    return _row(row)


def list_all(connection: Connection) -> list[StudyRow]:
    """List all studies in the order they were made."""
    return [_row(row) for row in connection.execute(_ALL).mappings()]


def list_unfinished(connection: Connection) -> list[StudyRow]:
    """List the studies that have not ended for good, in the order they were made."""
    return [_row(row) for row in connection.execute(_UNFINISHED).mappings()]


def _row(row: RowMapping) -> StudyRow:
    taken: dict[str, Any] = {
        name: row[name] for name in ("id", "name", "state_reason", "created_at", "finished_at", "generator_owner")
    }
    return StudyRow(
        **taken,
        spec=stored_spec(row["spec"]),
        state=StudyState(row["state"]),
        budget_reached_at=row["budget_reached_at"],
        gpu_seconds_spent=float(row["gpu_seconds"]),
        gpu_seconds_saved=float(row["saved_seconds"]),
        wall_seconds_spent=float(row["wall_seconds"] or 0.0),
        held=int(row["held"]),
        guesses=tuple(row["guesses"]),
        enqueued=int(row["enqueued"]),
        counts={TrialState(state): int(count) for state, count in row["counts"].items()},
    )
