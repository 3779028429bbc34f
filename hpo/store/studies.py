"""Studies: making, finding, pausing, ending them, and the lease of the one optimizer that serves each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Update, func, insert, or_, select, text, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError

from ..errors import ConflictError, NotFoundError, StudyExistsError
from ..spec import StudySpec, dump_spec, parse_spec
from ..trial import StudyState, TrialState
from . import events, lifecycle
from .tables import NOW, study, trial

_READ: Final = """
SELECT study.*, totals.counts, totals.gpu_seconds, totals.first_started_at,
       EXTRACT(epoch FROM clock_timestamp() - totals.first_started_at) AS wall_seconds
FROM study
CROSS JOIN LATERAL (
    SELECT COALESCE(jsonb_object_agg(state, trials), '{{}}') AS counts,
           COALESCE(sum(gpu_seconds), 0) AS gpu_seconds,
           min(started_at) AS first_started_at
    FROM (
        SELECT state, count(*) AS trials, sum(gpu_seconds) AS gpu_seconds, min(started_at) AS started_at
        FROM trial WHERE trial.study_id = study.id GROUP BY state
    ) AS by_state
) AS totals
{where}
ORDER BY study.id
"""
_ALL: Final = text(_READ.format(where=""))
_BY_NAME: Final = text(_READ.format(where="WHERE study.name = :name"))
_BY_ID: Final = text(_READ.format(where="WHERE study.id = :study_id"))
# Ended or about to: what settling has something to do with.
_UNSETTLED: Final = text(_READ.format(where="WHERE study.state <> 'completed' AND study.finished_at IS NULL"))
_INVALID_STREAK: Final = text("""
SELECT failure_kind, failure_message
FROM trial JOIN study ON study.id = trial.study_id
WHERE trial.study_id = :study_id AND trial.finished_at > study.state_changed_at AND trial.state <> 'withdrawn'
ORDER BY trial.finished_at DESC, trial.id DESC
LIMIT :in_a_row
""")
_ALLOWED: Final = {
    StudyState.PAUSED: {StudyState.ACTIVE},
    StudyState.ACTIVE: {StudyState.PAUSED},
    StudyState.STOPPED: {StudyState.ACTIVE, StudyState.PAUSED},
}
_EVENTS: Final = {
    StudyState.PAUSED: "study.paused",
    StudyState.ACTIVE: "study.resumed",
    StudyState.STOPPED: "study.stopped",
    StudyState.COMPLETED: "study.completed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """A study as it stands."""

    id: int
    name: str
    spec: StudySpec
    revision: int
    state: StudyState
    state_reason: str | None
    """One sentence for a person: why it was paused or has ended."""
    created_at: datetime
    finished_at: datetime | None
    budget_reached_at: datetime | None
    """Set once GPU hours, wall hours or the target are reached: what runs is ending, nothing new begins."""
    gpu_seconds_spent: float
    """Device time of all attempts of all trials, as reported so far."""
    wall_seconds_spent: float
    """Time since the first trial was claimed."""
    counts: Mapping[TrialState, int] = field(default_factory=dict)
    """Number of trials in each state that has any."""
    generator_owner: str | None = None
    """The optimizer process that serves the study, or served it last."""

    @property
    def live_trials(self) -> int:
        """The trials that count against budget.trials: all that were not withdrawn."""
        return sum(self.counts.values()) - self.counts.get(TrialState.WITHDRAWN, 0)

    @property
    def open_trials(self) -> int:
        """The trials that are not over."""
        return sum(count for state, count in self.counts.items() if not state.is_terminal)


def create(connection: Connection, spec: StudySpec, *, actor: str) -> StudyRow:
    """Store a new study; it is active at once.

    Raises:
        StudyExistsError: there is one of that name.
    """
    try:
        with connection.begin_nested():
            values = {"name": spec.name, "spec": dump_spec(spec)}
            study_id = connection.execute(insert(study).values(values).returning(study.c.id)).scalar_one()
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != "study_name_key":
            raise
        raise StudyExistsError(
            f"a study named {spec.name!r} exists already; choose another name, or delete that one"
        ) from error
    events.append(connection, study_id, None, "study.created", actor, {"name": spec.name})
    return get_by_id(connection, study_id)


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


def set_state(
    connection: Connection, name: str, target: StudyState, *, reason: str | None = None, actor: str
) -> StudyRow:
    """Pause, resume or stop a study; nothing happens when it is in that state already.

    Running trials learn of it with their next report. Stopping withdraws what nobody has claimed.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: the study cannot go there from where it is.
    """
    _lock(connection, name)
    found = get(connection, name)
    if found.state is target:
        return found
    if found.state not in _ALLOWED.get(target, set()):
        raise ConflictError(f"the study {name!r} is {found.state} and cannot become {target}")
    _move(connection, found.id, target, reason, actor)
    if target is StudyState.STOPPED:
        lifecycle.withdraw(connection, found.id, actor=actor)
        lifecycle.close(connection, found.id, actor=actor)
    return get_by_id(connection, found.id)


def delete(connection: Connection, name: str, *, actor: str) -> None:
    """Delete a study with its trials and events.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: trials of it are running.
    """
    _lock(connection, name)
    found = get(connection, name)
    states = connection.execute(select(trial.c.state).where(trial.c.study_id == found.id).with_for_update()).scalars()
    running = sum(state == TrialState.RUNNING for state in states)
    if running:
        raise ConflictError(f"{running} trials of {name!r} are running; stop the study and wait until they have ended")
    connection.execute(sql_delete(study).where(study.c.id == found.id))
    events.append(connection, None, None, "study.deleted", actor, {"name": name, "trials": sum(found.counts.values())})


def settle(connection: Connection) -> list[str]:
    """End the studies whose budgets are reached; give the names of those that ended just now.

    Once GPU hours, wall hours or the target are reached, nothing new begins and what runs is told to stop; a study is
    completed when nothing runs any more. Any number of callers may do it at once.
    """
    ended = []
    for row in connection.execute(_UNSETTLED).mappings().all():
        found = _row(row)
        reason = (
            None if found.budget_reached_at or found.state is StudyState.STOPPED else _budget_reached(connection, found)
        )
        if reason is not None:
            _close_budget(connection, found.id, reason)
        if reason is not None or found.budget_reached_at is not None or found.state is StudyState.STOPPED:
            lifecycle.withdraw(connection, found.id, actor="settle")
            lifecycle.close(connection, found.id, actor="settle")
        if _end(connection, found):
            ended.append(found.name)
    return ended


def acquire_generator(connection: Connection, study_id: int, owner: str, seconds: float) -> int | None:
    """Take or renew the right to suggest for a study; give the generation, None while somebody else holds it.

    The generation grows whenever the owner changes or comes back after its lease expired: what it suggests under an
    older generation is refused.
    """
    mine = (study.c.generator_owner == owner) & (study.c.generator_expires_at > NOW)
    expires = text("clock_timestamp() + make_interval(secs => :seconds)").bindparams(seconds=seconds)
    renew = update(study).where(study.c.id == study_id, mine).values(generator_expires_at=expires)
    generation = connection.execute(renew.returning(study.c.generation)).scalar_one_or_none()
    if generation is None:
        free = or_(study.c.generator_expires_at.is_(None), study.c.generator_expires_at <= NOW)
        take = (
            update(study)
            .where(study.c.id == study_id, free)
            .values(generator_owner=owner, generator_expires_at=expires, generation=study.c.generation + 1)
        )
        generation = connection.execute(take.returning(study.c.generation)).scalar_one_or_none()
    return None if generation is None else int(generation)


def release_generator(connection: Connection, study_id: int, owner: str) -> None:
    """Give the right to suggest back, if `owner` holds it."""
    connection.execute(
        update(study)
        .where(study.c.id == study_id, study.c.generator_owner == owner)
        .values(generator_owner=None, generator_expires_at=None)
    )


def generator_is_alive(connection: Connection, study_id: int) -> bool:
    """Whether an optimizer holds an unexpired lease on the study."""
    query = select(func.count()).where(study.c.id == study_id, study.c.generator_expires_at > NOW)
    return bool(connection.execute(query).scalar_one())


def lock_of_trial(connection: Connection, trial_id: int) -> None:
    """Lock the study of a trial until the end of the transaction."""
    connection.execute(
        text("SELECT FROM study WHERE id = (SELECT study_id FROM trial WHERE id = :trial_id) FOR NO KEY UPDATE"),
        {"trial_id": trial_id},
    )


def pause_after_invalid(connection: Connection, study_id: int, *, in_a_row: int) -> bool:
    """Pause a study whose last `in_a_row` finished trials were all invalid; those before a resume do not count."""
    rows = connection.execute(_INVALID_STREAK, {"study_id": study_id, "in_a_row": in_a_row}).all()
    if len(rows) < in_a_row or any(row.failure_kind != "invalid" for row in rows):
        return False
    if get_by_id(connection, study_id).state is not StudyState.ACTIVE:
        return False
    first_line = (rows[0].failure_message or "no message was given").splitlines()[0]
    reason = f"{in_a_row} trials in a row could not be built: {first_line}"
    _move(connection, study_id, StudyState.PAUSED, reason, "guard")
    return True


def _lock(connection: Connection, name: str) -> None:
    connection.execute(text("SELECT FROM study WHERE name = :name FOR NO KEY UPDATE"), {"name": name})


def _move(connection: Connection, study_id: int, target: StudyState, reason: str | None, actor: str) -> None:
    connection.execute(
        update(study).where(study.c.id == study_id).values(state=target, state_reason=reason, state_changed_at=NOW)
    )
    events.append(connection, study_id, None, _EVENTS[target], actor, {"reason": reason} if reason else {})


def _budget_reached(connection: Connection, found: StudyRow) -> str | None:
    """Say which limit other than the number of trials is reached."""
    budget = found.spec.budget
    if budget.gpu_hours is not None and found.gpu_seconds_spent >= budget.gpu_hours * 3600:
        return f"the budget of {budget.gpu_hours:g} GPU hours is used up"
    if budget.wall_hours is not None and found.wall_seconds_spent >= budget.wall_hours * 3600:
        return f"the budget of {budget.wall_hours:g} hours is used up"
    if budget.target and (number := _reached_target(connection, found)) is not None:
        goal = ", ".join(f"{metric} {value:g}" for metric, value in budget.target.items())
        return f"trial {number} reached the target ({goal})"
    return None


def _reached_target(connection: Connection, found: StudyRow) -> int | None:
    """Give the number of the first feasible trial whose final metrics reach every target."""
    from ..spec import METRICS
    from .trials import is_feasible

    directions = {objective.metric: objective.direction for objective in found.spec.objectives}
    query = select(trial.c.number, trial.c.metrics).where(
        trial.c.study_id == found.id, trial.c.state.in_([TrialState.COMPLETED, TrialState.STOPPED])
    )
    for number, metrics in connection.execute(query.where(trial.c.metrics.is_not(None)).order_by(trial.c.number)):
        reached = all(
            metric in metrics
            and (
                metrics[metric] >= value
                if directions.get(metric, METRICS[metric][0]) == "maximize"
                else metrics[metric] <= value
            )
            for metric, value in found.spec.budget.target.items()
        )
        if reached and is_feasible(found, metrics):
            return int(number)
    return None


def _close_budget(connection: Connection, study_id: int, reason: str) -> None:
    marked = connection.execute(
        update(study)
        .where(study.c.id == study_id, study.c.budget_reached_at.is_(None))
        .values(budget_reached_at=NOW, state_reason=reason)
    )
    if marked.rowcount:
        events.append(connection, study_id, None, "study.budget_reached", "settle", {"reason": reason})


def _end(connection: Connection, found: StudyRow) -> bool:
    """Note the end of a study in which nothing is open and nothing can begin; False when it goes on."""
    statement: Update = update(study).where(
        study.c.id == found.id,
        study.c.finished_at.is_(None),
        ~select(trial.c.id).where(trial.c.study_id == found.id, trial.c.finished_at.is_(None)).exists(),
    )
    if found.state is StudyState.STOPPED:
        statement = statement.where(study.c.state == StudyState.STOPPED).values(finished_at=NOW)
    else:
        limit = found.spec.budget.trials
        full = study.c.live_trials >= limit if limit is not None else text("false")
        reason = func.coalesce(study.c.state_reason, f"all {limit} trials are done")
        statement = statement.where(
            study.c.state.in_([StudyState.ACTIVE, StudyState.PAUSED]),
            or_(study.c.budget_reached_at.is_not(None), full),
        ).values(state=StudyState.COMPLETED, state_changed_at=NOW, finished_at=NOW, state_reason=reason)
    row = connection.execute(statement.returning(study.c.state, study.c.state_reason)).one_or_none()
    if row is None:
        return False
    if row.state == StudyState.COMPLETED:
        events.append(connection, found.id, None, "study.completed", "settle", {"reason": row.state_reason})
    return True


def _row(row: RowMapping) -> StudyRow:
    taken: dict[str, Any] = {
        name: row[name]
        for name in ("id", "name", "revision", "state_reason", "created_at", "finished_at", "generator_owner")
    }
    return StudyRow(
        **taken,
        spec=parse_spec(row["spec"]),
        state=StudyState(row["state"]),
        budget_reached_at=row["budget_reached_at"],
        gpu_seconds_spent=float(row["gpu_seconds"]),
        wall_seconds_spent=float(row["wall_seconds"] or 0.0),
        counts={TrialState(state): int(count) for state, count in row["counts"].items()},
    )
