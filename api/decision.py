"""What a worker does after a report: the order of the reasons, and who is asked."""

from __future__ import annotations

from sqlalchemy import Connection

from hpo import early_stopping
from hpo.spec.study import NoStopping
from hpo.store import studies, trials
from hpo.store.lifecycle import Reported
from hpo.trial import Decision, StudyState


def decide(connection: Connection, reported: Reported, trial_id: int, *, measured: bool) -> Decision:
    """Decide about a trial whose report was accepted.

    A cancelled trial is abandoned, one of a paused study pauses, one of an ended study stops; else the study's
    stopping rule is asked when the report brought a measurement. It is asked again for a repeated report, since the
    answer to the first may have been lost.
    """
    if reported.cancel:
        return Decision.ABANDON
    if reported.study_state is StudyState.PAUSED:
        return Decision.PAUSE
    if reported.study_state is not StudyState.ACTIVE:
        return Decision.STOP
    if not measured:
        return Decision.CONTINUE
    spec = studies.get_by_id(connection, reported.study_id).spec
    if isinstance(spec.early_stopping, NoStopping):
        return Decision.CONTINUE
    records = trials.records(connection, reported.study_id)
    trial = next(record for record in records if record.id == trial_id)
    return early_stopping.decide(spec, trial, records)
