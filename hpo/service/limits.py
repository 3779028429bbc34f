"""Which limit of its budget a study has reached, and whether its space is used up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select, text

from ..results.outcome import is_feasible
from ..spec.configurations import count_configurations
from ..store import trials
from ..store.study_row import StudyRow
from ..store.tables import trial
from ..trial import RESULT_STATES, TrialState

_DIFFERENT: Final = text("SELECT count(DISTINCT params) FROM trial WHERE study_id = :study_id AND state <> 'withdrawn'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A limit that ends a study now: what runs stops with its next report."""

    reason: str
    """A sentence for a person."""
    too_many_failed: bool = False


def reached(connection: Connection, found: StudyRow) -> Reached | None:
    """Return which limit is reached, apart from the number of trials.

    A target ends the search, and where finalists are wanted they follow (`search_over`).
    """
    if (of_hours := hours_reached(found)) is not None:
        return of_hours
    if found.race is None and (failures := _failures_reached(connection, found)) is not None:
        return failures
    reason = None if found.finalists is not None else _target_reached(connection, found)
    return None if reason is None else Reached(reason=reason)


def hours_reached(found: StudyRow) -> Reached | None:
    """Return the limit of hours that is reached, of devices or of the clock."""
    if (limit := found.gpu_seconds_limit) is not None and found.gpu_seconds_spent >= limit:
        return Reached(reason=f"the budget of {limit / 3600:g} GPU hours is used up")
    if (limit := found.wall_seconds_limit) is not None and found.wall_seconds_spent >= limit:
        return Reached(reason=f"the budget of {limit / 3600:g} hours is used up")
    return None


def search_over(connection: Connection, found: StudyRow, configurations: int | None) -> str | None:
    """Return why a study with finalists searches no more; None while it may.

    `configurations` is the size of a space that is used up.
    """
    if found.finalists is None or found.race is not None:
        return None
    budget, left = found.spec.budget, 1.0 - found.finalists.share
    if budget.gpu_hours is not None and found.gpu_seconds_spent >= left * budget.gpu_hours * 3600:
        return f"{left:.0%} of the budget of {budget.gpu_hours:g} GPU hours is used up"
    if budget.wall_hours is not None and found.wall_seconds_spent >= left * budget.wall_hours * 3600:
        return f"{left:.0%} of the budget of {budget.wall_hours:g} hours is used up"
    if (why := full(found, configurations)) is not None and not is_search_open(connection, found):
        return why
    return _target_reached(connection, found)


def full(found: StudyRow, configurations: int | None) -> str | None:
    """Return why a study gets no more trials although nothing ends it; None if it may get some.

    `configurations` is the size of a space that is used up.
    """
    limit = found.spec.budget.trials
    if limit is not None and found.live_trials >= limit:
        return "its only trial is done" if limit == 1 else f"all {limit} trials are done"
    if configurations is not None and not found.waiting_guesses:
        return f"the space is used up: each of its {configurations} configurations has been tried"
    return None


def is_search_open(connection: Connection, found: StudyRow) -> bool:
    """Return whether a trial of the search has not ended."""
    query = select(trial.c.id).where(
        trial.c.study_id == found.id, trial.c.finished_at.is_(None), trial.c.replicate_of.is_(None)
    )
    return bool(connection.execute(select(query.exists())).scalar_one())


def _failures_reached(connection: Connection, found: StudyRow) -> Reached | None:
    budget, failed = found.spec.budget, found.counts.get(TrialState.FAILED, 0)
    if not budget.too_many_failed(failed, has_epochs=found.with_epochs > 0):
        return None
    what = f"{failed} trials have failed"
    if budget.max_failed is None:
        what += " and no other has finished an epoch"
    return Reached(reason=f"{what}{last_failure(connection, found.id)}", too_many_failed=True)


def _target_reached(connection: Connection, found: StudyRow) -> str | None:
    target = found.spec.budget.target
    if not target or (number := _reached_target(connection, found)) is None:
        return None
    goal = ", ".join(f"{metric} {value:g}" for metric, value in target.items())
    return f"trial {number} reached the target ({goal})"


def used_up_space(connection: Connection, found: StudyRow) -> int | None:
    """Return the number of configurations of the space if each is one of a trial; None while any is left."""
    # A guess of a person is tried even if it was tried before.
    if found.waiting_guesses:
        return None
    count = count_configurations(found.spec)
    if not count or found.live_trials + found.imported < count:
        return None
    different = connection.execute(_DIFFERENT, {"study_id": found.id}).scalar_one()
    return count if different >= count else None


def last_failure(connection: Connection, study_id: int) -> str:
    """Return the last failure of a study, as the end of a sentence."""
    query = (
        select(trial.c.number, trial.c.failure_kind, trial.c.failure_message)
        .where(trial.c.study_id == study_id, trial.c.state == TrialState.FAILED, trial.c.origin.is_(None))
        .order_by(trial.c.finished_at.desc(), trial.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return ""
    message = (row.failure_message or "").partition("\n")[0]
    return f"; the last one, trial {row.number}: {row.failure_kind}" + (f", {message}" if message else "")


def _reached_target(connection: Connection, found: StudyRow) -> int | None:
    """Return the number of the first feasible trial whose final metrics reach every target."""
    known = found.spec.task.reported_metrics
    directions = {objective.metric: objective.direction for objective in found.spec.objectives}
    for record in trials.records(connection, found.id):
        # What was reached elsewhere is no success of this study.
        if record.state not in RESULT_STATES or record.metrics is None or record.origin is not None:
            continue
        metrics = record.metrics
        is_reached = all(
            metric in metrics
            and (
                metrics[metric] >= value
                if directions.get(metric, known[metric].direction) == "maximize"
                else metrics[metric] <= value
            )
            for metric, value in found.spec.budget.target.items()
        )
        if is_reached and is_feasible(found.spec, metrics):
            return record.number
    return None
