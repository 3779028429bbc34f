"""A study as it stands: the row with what its trials add up to."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, RowMapping, TextClause, select, text

from ..errors import NotFoundError, UnusableStudyError
from ..spec import StudySpec, stored_spec
from ..spec.finalists import FinalistsConfig
from ..trial import TERMINAL_STATES, Params, StudyState, TrialState
from . import study_fault
from .tables import study
from .usage import USED_SECONDS

log = logging.getLogger(__name__)
_said_unreadable: set[int] = set()

UNSERVED_SECONDS: Final = 30.0
"""An optimizer may take this long to begin with a study that is new, or active again."""
LOOKING_SECONDS: Final = 10.0
"""An optimizer that has looked at all studies within this time soon takes one that nobody serves, as one that another
has handed over; one that is within a long fit does not."""
_READ: Final = """
SELECT study.*, totals.counts, totals.held, totals.backing_off, totals.enqueued, totals.replicates, totals.with_epochs,
       totals.used_seconds, totals.trained_seconds, totals.failed_seconds, totals.saved_seconds,
       totals.first_started_at,
       (SELECT count(*) FROM trial WHERE trial.study_id = study.id AND origin IS NOT NULL AND state <> 'withdrawn')
           AS imported,
       EXTRACT(epoch FROM clock_timestamp() - totals.first_started_at) AS wall_seconds,
       COALESCE(generator_expires_at <= clock_timestamp(), true)
           AND GREATEST(created_at, state_changed_at) < clock_timestamp() - make_interval(secs => {unserved_seconds})
           AND NOT EXISTS (SELECT FROM optimizer
                           WHERE expires_at > clock_timestamp()
                             AND looked_at > clock_timestamp() - make_interval(secs => {looking_seconds}))
           AS has_no_optimizer,
       COALESCE(generator_expires_at > clock_timestamp(), false) AS is_served
FROM study
CROSS JOIN LATERAL (
    SELECT COALESCE(jsonb_object_agg(state, trials), '{{}}') AS counts,
           COALESCE(sum(used_seconds), 0) AS used_seconds,
           COALESCE(sum(gpu_seconds) FILTER (WHERE state <> 'failed'), 0) AS trained_seconds,
           COALESCE(sum(used_seconds) FILTER (WHERE state = 'failed'), 0) AS failed_seconds,
           COALESCE(sum(held), 0) AS held,
           COALESCE(sum(backing_off), 0) AS backing_off,
           COALESCE(sum(enqueued), 0) AS enqueued,
           COALESCE(sum(replicates), 0) AS replicates,
           COALESCE(sum(with_epochs) FILTER (WHERE state NOT IN ('failed', 'withdrawn')), 0) AS with_epochs,
           COALESCE(sum(saved_seconds), 0) AS saved_seconds,
           min(started_at) AS first_started_at
    FROM (
        -- Those that have ended, whose sums are stored, and those that have not.
        SELECT state, sum(trials) AS trials, sum(gpu_seconds) AS gpu_seconds, sum(used_seconds) AS used_seconds,
               sum(saved_seconds) AS saved_seconds, 0 AS held, 0 AS backing_off, sum(enqueued) AS enqueued,
               sum(replicates) AS replicates, sum(with_epochs) AS with_epochs, min(first_started_at) AS started_at
        FROM study_total WHERE study_total.study_id = study.id
        -- Where all were taken out, the sums of what was added and taken away again may be a little off zero.
        GROUP BY state HAVING sum(trials) > 0
        UNION ALL
        SELECT state, count(*), sum(gpu_seconds), sum({used_seconds}), 0, count(*) FILTER (WHERE held),
               count(*) FILTER (WHERE not_before > clock_timestamp()), count(*) FILTER (WHERE generator = 'enqueued'),
               count(*) FILTER (WHERE replicate_of IS NOT NULL), count(*) FILTER (WHERE epochs_done > 0),
               min(started_at)
        FROM trial AS used WHERE used.study_id = study.id AND used.finished_at IS NULL GROUP BY state
    ) AS by_state
) AS totals
{where}
ORDER BY study.id
"""


def _read(where: str = "") -> TextClause:
    values = {
        "used_seconds": USED_SECONDS,
        "unserved_seconds": UNSERVED_SECONDS,
        "looking_seconds": LOOKING_SECONDS,
    }
    return text(_READ.format(where=where, **values))


_ALL: Final = _read()
_BY_NAME: Final = _read("WHERE study.name = :name")
_BY_ID: Final = _read("WHERE study.id = :study_id")
_SPEC: Final = text("SELECT name, uuid, spec::text AS spec FROM study WHERE id = :study_id")
_SPECS: Final = text("SELECT id, name, spec::text AS spec FROM study WHERE id <> ALL(:readable) ORDER BY id")
_UNFINISHED: Final = _read("WHERE study.finished_at IS NULL")


NO_OPTIMIZER: Final = (
    "no optimizer serves this study at the moment, so that new trials are Sobol points; the log of `hpo serve` says "
    "why, and `hpo optimizer` starts another one"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What a study may use until its finalists are trained."""

    trials: int
    """Trainings of finalists in all, those of earlier rounds included."""
    gpu_seconds: float | None
    """Device time of the whole study; None without a limit."""
    wall_seconds: float | None
    """Time since the first claim of the study; None without a limit."""
    reason: str
    """Why the search ended, as a sentence without a full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutline:
    """What a study is, as long as it is there."""

    id: int
    name: str
    uuid: UUID
    spec: StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """A study as it stands."""

    id: int
    uuid: UUID
    """No other study has it, also in another database."""
    name: str
    spec: StudySpec
    revision: int = 1
    """Grows with every change of the spec."""
    state: StudyState
    state_reason: str | None
    """One sentence for a person: why it was paused or has ended."""
    created_at: datetime
    finished_at: datetime | None
    budget_reached_at: datetime | None
    """Set once a limit other than the number of trials is reached: what runs is ending, nothing new begins."""
    too_many_failed: bool
    """Whether that limit is the number of failures."""
    gpu_seconds_spent: float
    """Device time of all attempts of all trials so far, each from its claim to its end."""
    gpu_seconds_trained: float
    """The part of it in the epochs, evaluation included, of trials that have not failed."""
    gpu_seconds_failed: float
    """The part of it in trials that failed. The rest is start-up and epochs that were interrupted."""
    gpu_seconds_saved: float
    """Device time of the epochs that early stopping has spared: each trial's, at what its own epochs have cost."""
    wall_seconds_spent: float
    """Time since the first trial was claimed."""
    counts: Mapping[TrialState, int] = field(default_factory=dict)
    """Number of trials in each state that has any."""
    held: int = 0
    """Paused trials that the stopping rule keeps from being claimed until they are promoted."""
    backing_off: int = 0
    """Trials that are run again after a crash, and not yet."""
    guesses: Sequence[Params] = ()
    """What people asked to be tried, those that became trials included; each has all values or some."""
    with_epochs: int = 0
    """Trials that have not failed and have finished at least one epoch."""
    enqueued: int = 0
    """How many of the guesses, from the first on, have become trials."""
    replicates: int = 0
    """How many trials train the configuration of another one again; withdrawn ones do not count."""
    imported: int = 0
    """How many results from elsewhere it has, beside the trials that `counts` counts."""
    finalists: FinalistsConfig | None = None
    """How the best configurations are trained again after the search; None if they are not."""
    search_ended_at: datetime | None = None
    """When the search ended and the training of the finalists began."""
    race: Race | None = None
    """What that training may use; None before it began."""
    generator_owner: str | None = None
    """The optimizer process that serves the study, or served it last."""
    is_served: bool = False
    """Whether its lease on the study holds still."""
    fault: str | None = None
    """What of the service fails with this study, a sentence on a line for each part; None where nothing does."""

    note: str | None = None
    """What a person has noted about it."""

    has_no_optimizer: bool = False
    """Whether no optimizer process holds the study or soon takes it, although there was time to begin."""

    @property
    def degraded(self) -> str | None:
        """What is wrong with the study, or what it lacks, as a sentence without a full stop; None if nothing is."""
        if self.fault is not None:
            return study_fault.sentence(self.fault, self.generator_owner if self.is_served else None)
        return NO_OPTIMIZER if self.has_no_optimizer and self.is_searching else None

    @property
    def trials_over(self) -> int:
        """The trials that have ended, trainings of finalists included, withdrawn ones not."""
        return sum(self.counts.get(state, 0) for state in TERMINAL_STATES - {TrialState.WITHDRAWN})

    @property
    def live_trials(self) -> int:
        """The trials that count against budget.trials: all that were not withdrawn and are no replicates."""
        return sum(self.counts.values()) - self.counts.get(TrialState.WITHDRAWN, 0) - self.replicates

    @property
    def is_searching(self) -> bool:
        """Whether new configurations are proposed, as long as the budget has room for them."""
        return self.state is StudyState.ACTIVE and self.budget_reached_at is None and self.search_ended_at is None

    @property
    def gpu_seconds_limit(self) -> float | None:
        """The device time that ends the study; more than its budget where finalists were asked for afterwards."""
        hours = self.spec.budget.gpu_hours
        return self.race.gpu_seconds if self.race is not None else None if hours is None else hours * 3600

    @property
    def wall_seconds_limit(self) -> float | None:
        """The time since the first claim that ends the study."""
        hours = self.spec.budget.wall_hours
        return self.race.wall_seconds if self.race is not None else None if hours is None else hours * 3600

    @property
    def gpu_seconds_of_startup(self) -> float:
        """Device time outside of finished epochs, of trials that have not failed: start-up and interrupted epochs."""
        return max(self.gpu_seconds_spent - self.gpu_seconds_trained - self.gpu_seconds_failed, 0.0)

    @property
    def waiting_guesses(self) -> Sequence[Params]:
        """The guesses that have not become trials yet."""
        return self.guesses[self.enqueued :]


def get(connection: Connection, name: str) -> StudyRow:
    """Read a study by its name.

    Raises:
        NotFoundError: there is none; names what is near.
        UnusableStudyError: its spec cannot be read.
    """
    row = connection.execute(_BY_NAME, {"name": name}).mappings().one_or_none()
    if row is None:
        known = list(connection.execute(select(study.c.name).order_by(study.c.name)).scalars())
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`hpo study list` shows what there is"
        raise NotFoundError(f"there is no study {name!r}; {hint}")
    return _row(row)


def id_of(connection: Connection, name: str) -> int:
    """Return the id of a study, without what its trials add up to.

    Raises:
        NotFoundError: there is none; names what is near.
    """
    found = connection.execute(select(study.c.id).where(study.c.name == name)).scalar_one_or_none()
    return get(connection, name).id if found is None else int(found)


def get_by_id(connection: Connection, study_id: int) -> StudyRow:
    """Read a study by its id.

    Raises:
        NotFoundError: there is none of that id.
        UnusableStudyError: its spec cannot be read.
    """
    row = connection.execute(_BY_ID, {"study_id": study_id}).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no study with the id {study_id}; it was probably deleted")
    return _row(row)


def outline_of(connection: Connection, study_id: int) -> StudyOutline:
    """Return what a study is, without what its trials add up to, which takes the longer the more there are.

    Raises:
        NotFoundError: there is none of that id.
        UnusableStudyError: it cannot be read.
    """
    row = connection.execute(_SPEC, {"study_id": study_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no study with the id {study_id}; it was probably deleted")
    return outline_from(study_id, row.name, row.uuid, row.spec)


def outline_from(study_id: int, name: str, uuid: UUID, spec: str) -> StudyOutline:
    """Return what a study is from what was read of it.

    Raises:
        UnusableStudyError: its spec cannot be read.
    """
    try:
        return StudyOutline(id=study_id, name=name, uuid=uuid, spec=parsed(spec))
    except ValueError as error:
        raise _unusable(study_id, name, error) from error


@lru_cache(maxsize=64)
def parsed(spec: str) -> StudySpec:
    """Return a spec from its text in the store, the same object for the same text."""
    return stored_spec(json.loads(spec))


def is_readable(spec: str) -> bool:
    """Return whether this release can read a spec, given as its text in the store."""
    try:
        parsed(spec)
    except ValueError:
        return False
    return True


def list_all(connection: Connection) -> list[StudyRow]:
    """List all studies in the order they were made, without those whose spec cannot be read."""
    return list(_readable(connection.execute(_ALL).mappings()))


def list_unreadable(connection: Connection, readable: Iterable[int]) -> list[UnusableStudyError]:
    """Return an error, which is a sentence, for each study that this release cannot read.

    `readable` are the ids of those that were read.
    """
    found = []
    for row in connection.execute(_SPECS, {"readable": list(readable)}).mappings():
        try:
            parsed(row["spec"])
        except ValueError as error:
            found.append(_unusable(row["id"], row["name"], error))
    return found


def list_unfinished(connection: Connection) -> list[StudyRow]:
    """List the studies that have not ended for good, in the order they were made; unreadable ones are left out."""
    return list(_readable(connection.execute(_UNFINISHED).mappings()))


def _readable(rows: Iterable[RowMapping]) -> Iterator[StudyRow]:
    for row in rows:
        try:
            yield _row(row)
        except UnusableStudyError as error:
            # Asked for twice a second by an optimizer, and to be said once.
            if row["id"] not in _said_unreadable:
                _said_unreadable.add(row["id"])
                log.error("%s", error)


def _row(row: RowMapping) -> StudyRow:
    try:
        return _read_row(row)
    except ValueError as error:
        raise _unusable(row["id"], row["name"], error) from error


def _unusable(study_id: int, name: str, error: ValueError) -> UnusableStudyError:
    reason = " ".join(str(error).split())[:300]
    message = f"the study {name!r} cannot be read by this release ({reason}); use the one that made it"
    return UnusableStudyError(message, study_id=study_id)


def _read_row(row: RowMapping) -> StudyRow:
    taken: dict[str, Any] = {
        name: row[name] for name in ("id", "name", "state_reason", "created_at", "finished_at", "search_ended_at")
    }
    return StudyRow(
        **taken,
        uuid=row["uuid"],
        generator_owner=row["generator_owner"],
        is_served=row["is_served"],
        fault=row["fault"],
        note=row["note"],
        spec=stored_spec(row["spec"]),
        revision=int(row["revision"]),
        state=StudyState(row["state"]),
        budget_reached_at=row["budget_reached_at"],
        too_many_failed=row["too_many_failed"],
        gpu_seconds_spent=float(row["used_seconds"]),
        gpu_seconds_trained=float(row["trained_seconds"]),
        gpu_seconds_failed=float(row["failed_seconds"]),
        gpu_seconds_saved=float(row["saved_seconds"]),
        wall_seconds_spent=float(row["wall_seconds"] or 0.0),
        has_no_optimizer=bool(row["has_no_optimizer"]),
        held=int(row["held"]),
        backing_off=int(row["backing_off"]),
        guesses=tuple(row["guesses"]),
        with_epochs=int(row["with_epochs"]),
        enqueued=int(row["enqueued"]),
        replicates=int(row["replicates"]),
        imported=int(row["imported"]),
        finalists=None if row["finalists"] is None else FinalistsConfig.model_validate(row["finalists"]),
        race=None if row["race"] is None else Race(**row["race"]),
        counts={TrialState(state): int(count) for state, count in row["counts"].items()},
    )
