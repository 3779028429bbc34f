"""End the studies whose budgets are reached; promote the paused trials that may continue after all."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Update, case, or_, select, text, update

from ..results.outcome import is_feasible
from ..stopping.decide import promotions
from ..store import events, lifecycle, trials
from ..store.study_row import StudyRow, list_unfinished
from ..store.tables import NOW, study, trial
from ..trial import RESULT_STATES, StudyState

_ACTOR: Final = "settle"
"""The actor in events; release 0.1.0 wrote this name, and a log should not change it halfway."""


def end_finished_studies(connection: Connection) -> list[str]:
    """End the studies whose budgets are reached; return the names of those that ended just now.

    Once GPU hours, wall hours or the target are reached, nothing new begins and running trials stop with their next
    report; a study is completed when nothing runs any more. The stopping rule is asked again about the trials that it
    paused. Any number of callers may do it at once.
    """
    ended = []
    for found in list_unfinished(connection):
        reason = (
            None if found.budget_reached_at or found.state is StudyState.STOPPED else _budget_reached(connection, found)
        )
        if reason is not None:
            _close_budget(connection, found.id, reason)
        if reason is not None or found.budget_reached_at is not None or found.state is StudyState.STOPPED:
            lifecycle.withdraw(connection, found.id, actor=_ACTOR)
            lifecycle.close(connection, found.id, actor=_ACTOR)
        elif found.held and found.state is StudyState.ACTIVE:
            _promote(connection, found)
        if _end(connection, found):
            ended.append(found.name)
    return ended


def _promote(connection: Connection, found: StudyRow) -> None:
    """Let those trials continue that the stopping rule would not pause again; without any, end a study of held trials.

    No trial waits for ever: as long as others run, what they report may promote it; when none is left, it is stopped
    with what it has measured.
    """
    allowed = promotions(found.spec, trials.records(connection, found.id))
    if not lifecycle.promote(connection, found.id, allowed, actor=_ACTOR):
        lifecycle.close_held(connection, found.id, actor=_ACTOR)


def _budget_reached(connection: Connection, found: StudyRow) -> str | None:
    """Return which limit other than the number of trials is reached."""
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
    """Return the number of the first feasible trial whose final metrics reach every target."""
    known = found.spec.task.reported_metrics
    directions = {objective.metric: objective.direction for objective in found.spec.objectives}
    query = select(trial.c.number, trial.c.metrics).where(
        trial.c.study_id == found.id, trial.c.state.in_(RESULT_STATES)
    )
    for number, metrics in connection.execute(query.where(trial.c.metrics.is_not(None)).order_by(trial.c.number)):
        reached = all(
            metric in metrics
            and (
                metrics[metric] >= value
                if directions.get(metric, known[metric].direction) == "maximize"
                else metrics[metric] <= value
            )
            for metric, value in found.spec.budget.target.items()
        )
        if reached and is_feasible(found.spec, metrics):
            return int(number)
    return None


def _close_budget(connection: Connection, study_id: int, reason: str) -> None:
    marked = connection.execute(
        update(study)
        .where(study.c.id == study_id, study.c.budget_reached_at.is_(None))
        .values(budget_reached_at=NOW, state_reason=reason)
    )
    if marked.rowcount:
        events.append(connection, study_id, None, "study.budget_reached", _ACTOR, {"reason": reason})


def _end(connection: Connection, found: StudyRow) -> bool:
    """Note the end of a study in which nothing is open and nothing can begin; return False when it continues."""
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
        reason = case((study.c.budget_reached_at.is_(None), f"all {limit} trials are done"), else_=study.c.state_reason)
        statement = statement.where(
            study.c.state.in_([StudyState.ACTIVE, StudyState.PAUSED]),
            or_(study.c.budget_reached_at.is_not(None), full),
        ).values(state=StudyState.COMPLETED, state_changed_at=NOW, finished_at=NOW, state_reason=reason)
    row = connection.execute(statement.returning(study.c.state, study.c.state_reason)).one_or_none()
    if row is None:
        return False
    if row.state == StudyState.COMPLETED:
        events.append(connection, found.id, None, "study.completed", _ACTOR, {"reason": row.state_reason})
    return True
