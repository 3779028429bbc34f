"""End the studies whose budgets are reached; promote the paused trials that may continue after all."""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import ColumnElement, Connection, select, text, update

from ..errors import NotFoundError, StoreUnavailableError, UnusableStudyError
from ..spec.configurations import count_configurations
from ..stopping.decide import promotions
from ..stopping.standing import has_marks
from ..store import Database, events, lifecycle, marks, study_fault, trials
from ..store.study_row import StudyRow, get_by_id, parsed
from ..store.study_state import lock
from ..store.tables import NOW, study, trial
from ..store.wire import prepared
from ..trial import StudyState, TrialState
from . import finalists
from .limits import Reached, full, hours_reached, last_failure, reached, search_over, used_up_space

log = logging.getLogger(__name__)

_UNFINISHED: Final = select(study.c.id, study.c.name).where(study.c.finished_at.is_(None)).order_by(study.c.id)
_LIMITS: Final = text("""
SELECT study.id, study.spec::text AS spec, study.live_trials,
       study.state = 'active' AND study.finished_at IS NULL AND study.budget_reached_at IS NULL
           AND study.finalists IS NULL AS is_open
FROM trial JOIN study ON study.id = trial.study_id
WHERE trial.id = :trial_id
""")
_WAITING: Final = (TrialState.SUGGESTED, TrialState.PAUSED)
_ACTOR: Final = "settle"
"""The actor in events; release 0.1.0 wrote this name, and a log should not change it halfway."""


def end_finished_studies(database: Database) -> list[str]:
    """End the studies whose budgets are reached; return the names of those that ended just now.

    Once GPU hours, wall hours, the target or too many failures are reached, nothing new begins and running trials stop
    with their next report; a study has ended when nothing runs any more. Between the search and this end the finalists
    are trained, where they are wanted. The stopping rule is asked again about the trials that it paused. Any number of
    callers may do it at once. Each study has a transaction of its own, so that none is locked while others are settled,
    and one in which there is nothing to do is not locked at all.

    Raises:
        StoreUnavailableError: Postgres is away; the studies before it are settled.
    """
    with database.transaction() as connection:
        unfinished = connection.execute(_UNFINISHED).all()
    return [name for study_id, name in unfinished if end_study_if_finished(database, study_id)]


def end_study_if_finished(database: Database, study_id: int) -> bool:
    """Do for one study, in which something has just happened, what `end_finished_studies` does for all.

    Return whether it ended just now. A fault is noted on the study: it must not keep other studies from their ends, and
    a worker from an answer.

    Raises:
        StoreUnavailableError: Postgres is away.
    """
    try:
        with database.transaction() as connection:
            found = get_by_id(connection, study_id)
            has_ended = found.finished_at is None and _settle(connection, found)
            study_fault.over(connection, found.id, found.fault, study_fault.Part.SETTLING)
            return has_ended
    except NotFoundError:
        return False  # deleted meanwhile
    except StoreUnavailableError:
        raise
    except UnusableStudyError as error:  # said once, as where a worker asks for a trial of it
        with database.transaction() as connection:
            study_fault.pause_unusable(connection, study_id, str(error))
        return False
    except Exception as error:  # the result that led here is stored already
        if study_fault.note_apart(database, study_id, study_fault.Part.SETTLING, error):
            log.exception("study %d could not be settled; it is tried again", study_id)
        return False


def end_study_after_result(database: Database, trial_id: int) -> bool:
    """As `end_study_if_finished`, after a trial has completed or was stopped: often it is plain that nothing follows.

    So it is in an active study whose only limit is a number of trials, as long as it may get more of them.

    Raises:
        StoreUnavailableError: Postgres is away.
    """
    with database.statements() as connection:
        row = prepared(connection, _LIMITS, {"trial_id": trial_id}).one_or_none()
    if row is None:
        return False  # deleted meanwhile
    is_plain = row.is_open and _has_room_alone(row.spec, int(row.live_trials))
    return not is_plain and end_study_if_finished(database, int(row.id))


def _has_room_alone(text_of_spec: str, live_trials: int) -> bool:
    """Return whether a number of trials is the only limit of a study, and not reached, and no trial is promoted."""
    try:
        spec = parsed(text_of_spec)
    except ValueError:
        return False  # who settles it says so
    budget = spec.budget
    is_counted = budget.trials is not None and live_trials < budget.trials
    has_others = budget.gpu_hours is not None or budget.wall_hours is not None or bool(budget.target)
    may_promote = getattr(spec.early_stopping, "pause", False)
    return is_counted and not has_others and not may_promote and not count_configurations(spec)


def _settle(connection: Connection, found: StudyRow) -> bool:
    """Do what follows from the trials of a study; return whether it ended just now."""
    is_over = found.budget_reached_at is not None or found.state is StudyState.STOPPED
    configurations = None if is_over else used_up_space(connection, found)
    limit = None if is_over else _limit(connection, found, configurations)
    if limit is not None:
        _close_budget(connection, found.id, limit)
    if is_over or limit is not None:
        if _is_any(connection, found.id, trial.c.state.in_(_WAITING)):
            lifecycle.withdraw(connection, found.id, actor=_ACTOR)
            lifecycle.close(connection, found.id, actor=_ACTOR)
    elif found.held and found.state is StudyState.ACTIVE:
        _promote(connection, found, is_used_up=configurations is not None)
    return _end(connection, found, configurations)


def _limit(connection: Connection, found: StudyRow, configurations: int | None) -> Reached | None:
    """Return the limit that ends a study now; begin or continue to train its finalists where none does."""
    if (limit := reached(connection, found)) is not None:
        return limit
    over = search_over(connection, found, configurations)
    reason = finalists.advance(connection, found, search_is_over=over)
    return None if reason is None else Reached(reason=reason)


def close_after_hours(connection: Connection, study_id: int) -> bool:
    """Let nothing begin any more in a study whose GPU or wall hours are used up; return whether they are.

    Raises:
        NotFoundError: the study was deleted.
    """
    found = get_by_id(connection, study_id)
    limit = None if found.budget_reached_at is not None else hours_reached(found)
    if limit is not None:
        _close_budget(connection, study_id, limit)
    return limit is not None or found.budget_reached_at is not None


def _promote(connection: Connection, found: StudyRow, *, is_used_up: bool) -> None:
    """Let those trials continue that the stopping rule would not pause again; without any, end a study of held trials.

    No trial waits for ever: as long as others run, what they report may promote it; when none is left, it is stopped
    with what it has measured.
    """
    allowed = _promotable(connection, found)
    if allowed and lifecycle.promote(connection, found.id, allowed, actor=_ACTOR):
        return
    if not _is_any(connection, found.id, trial.c.finished_at.is_(None) & ~trial.c.held):
        lifecycle.close_held(connection, found.id, is_used_up=is_used_up, actor=_ACTOR)


def _promotable(connection: Connection, found: StudyRow) -> list[int]:
    """Return the ids of the paused trials that the stopping rule would let continue."""
    if not has_marks(found.spec):
        return promotions(found.spec, trials.records(connection, found.id))
    marks.complete(connection, found.id)
    return marks.promotable(connection, found.id, found.spec)


def _close_budget(connection: Connection, study_id: int, limit: Reached) -> None:
    marked = connection.execute(
        update(study)
        .where(study.c.id == study_id, study.c.budget_reached_at.is_(None), study.c.state != StudyState.STOPPED)
        .values(budget_reached_at=NOW, state_reason=limit.reason, too_many_failed=limit.too_many_failed)
    )
    if marked.rowcount:
        events.append(connection, study_id, None, "study.budget_reached", _ACTOR, {"reason": limit.reason})


def _end(connection: Connection, found: StudyRow, configurations: int | None) -> bool:
    """Note the end of a study in which nothing is open and nothing can begin; return False when it continues.

    `configurations` is the size of a space that is used up.
    """
    if _has_open_trials(connection, found.id):
        return False
    last = get_by_id(connection, found.id)
    if last.state is not StudyState.STOPPED and _why(last, configurations) is None:
        return False  # it may get trials; without a lock, as above
    # From here on it gets no guess and no suggestion; one that came just before has to be seen.
    lock(connection, found.name)
    if _has_open_trials(connection, found.id):
        return False
    last = get_by_id(connection, found.id)
    if last.state is StudyState.STOPPED:
        state, reason = StudyState.STOPPED, last.state_reason
    elif (why := _why(last, configurations)) is not None:
        state, reason = _outcome(connection, last, why)
    else:
        return False
    marked = connection.execute(
        update(study)
        .where(study.c.id == found.id, study.c.finished_at.is_(None), study.c.state == last.state)
        .values(
            finished_at=NOW,
            **({} if state is last.state else {"state": state, "state_changed_at": NOW, "state_reason": reason}),
        )
    )
    if marked.rowcount and state is not StudyState.STOPPED:
        events.append(connection, found.id, None, f"study.{state}", _ACTOR, {"reason": reason})
    return bool(marked.rowcount)


def _has_open_trials(connection: Connection, study_id: int) -> bool:
    return _is_any(connection, study_id, trial.c.finished_at.is_(None))


def _is_any(connection: Connection, study_id: int, condition: ColumnElement[bool]) -> bool:
    """Return whether the study has a trial of which this is true."""
    found = select(trial.c.id).where(trial.c.study_id == study_id, condition).exists()
    return bool(connection.execute(select(found)).scalar_one())


def _why(last: StudyRow, configurations: int | None) -> str | None:
    """Return why a study without open trials gets no more; None if it may get some."""
    if last.budget_reached_at is not None:
        return last.state_reason or "its budget is reached"
    return None if last.finalists is not None else full(last, configurations)


def _outcome(connection: Connection, last: StudyRow, why: str) -> tuple[StudyState, str]:
    """Return how a study ends, and a sentence that says why: as failed where trials failed and none has a result."""
    failed = last.counts.get(TrialState.FAILED, 0)
    if last.too_many_failed:
        return StudyState.FAILED, why
    if not failed or last.with_epochs:
        return StudyState.COMPLETED, why
    trials_in_all = last.live_trials + last.replicates
    ends = f"{failed} of {trials_in_all} trials failed and none has a result{last_failure(connection, last.id)}"
    return StudyState.FAILED, ends if last.budget_reached_at is None else f"{why}; {ends}"
