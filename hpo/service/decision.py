"""What a worker does after a report: the order of the reasons, and who is asked."""

from __future__ import annotations

import logging

from ..errors import NotFoundError, StoreUnavailableError
from ..stopping.decide import decide as decide_by_rule
from ..stopping.decide import is_asked
from ..stopping.standing import has_marks, judge
from ..store import Database, marks, study_fault, trials
from ..store.lifecycle import Reported
from ..trial import Decision, StudyState
from .finishing import close_after_hours

log = logging.getLogger(__name__)


def decide(database: Database, reported: Reported, trial_id: int, *, last_step: int | None) -> Decision:
    """Decide about a trial whose report was accepted and committed; `last_step` is None for a mere heartbeat.

    A cancelled trial is abandoned, one of a paused study pauses, one of an ended study stops, and so does one of a
    study whose hours are used up by now: it keeps what it has measured. Else the study's stopping rule is asked when
    the report brought a measurement. It is asked again for a repeated report, since the
    answer to the first may have been lost. The rule runs outside any transaction: it may take a while. A trial whose
    rule fails continues, and the study says so.

    Raises:
        StoreUnavailableError: Postgres is away; the report is safe, and sending it again asks again.
        NotFoundError: the study was deleted meanwhile.
    """
    if reported.cancel:
        return Decision.ABANDON
    if reported.study_state is StudyState.PAUSED:
        return Decision.PAUSE
    if reported.study_state is not StudyState.ACTIVE or _are_hours_used_up(database, reported):
        return Decision.STOP
    if last_step is None or reported.rule == "none":
        return Decision.CONTINUE
    try:
        return _by_rule(database, reported, trial_id)
    except (StoreUnavailableError, NotFoundError):
        raise
    except Exception as error:
        # The worker would send its report again and again, and never come to another study.
        if study_fault.note_apart(database, reported.study_id, study_fault.Part.STOPPING, error):
            log.exception("trial %d continues", trial_id)
        return Decision.CONTINUE


def _by_rule(database: Database, reported: Reported, trial_id: int) -> Decision:
    own = reported.own
    if own is not None and own.is_marked and not _has_failed(own) and has_marks(own.spec):
        with database.statements() as connection:
            return judge(own.spec, own.record, marks.StoredRivals(connection, own))
    with database.transaction() as connection:
        own = own or marks.own(connection, trial_id)
        if own is None:
            raise NotFoundError(f"there is no trial {trial_id}; its study was probably deleted")
        if has_marks(own.spec):
            if not own.is_marked:
                marks.complete(connection, own.study_id)
            decision = judge(own.spec, own.record, marks.StoredRivals(connection, own))
            study_fault.over(connection, own.study_id, own.fault, study_fault.Part.STOPPING)
            return decision
        if not is_asked(own.spec, own.record):
            return Decision.CONTINUE
        records = trials.records(connection, reported.study_id)
    trial = next((record for record in records if record.id == trial_id), None)
    decision = Decision.CONTINUE if trial is None else decide_by_rule(own.spec, trial, records)
    if _has_failed(own):
        with database.transaction() as connection:
            study_fault.over(connection, own.study_id, own.fault, study_fault.Part.STOPPING)
    return decision


def _has_failed(own: marks.Own) -> bool:
    return study_fault.is_of(own.fault, study_fault.Part.STOPPING)


def _are_hours_used_up(database: Database, reported: Reported) -> bool:
    if not reported.has_hours:
        return False
    with database.transaction() as connection:
        return close_after_hours(connection, reported.study_id)
