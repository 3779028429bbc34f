"""What a worker does after a report: the order of the reasons, and who is asked."""

from __future__ import annotations

from ..spec.study import NoStopping
from ..stopping.decide import decide as decide_by_rule
from ..store import Database, studies, trials
from ..store.lifecycle import Reported
from ..trial import Decision, StudyState


def decide(database: Database, reported: Reported, trial_id: int, *, last_step: int | None) -> Decision:
    """Decide about a trial whose report was accepted and committed; `last_step` is None for a mere heartbeat.

    A cancelled trial is abandoned, one of a paused study pauses, one of an ended study stops; else the study's
    stopping rule is asked when the report brought a measurement. It is asked again for a repeated report, since the
    answer to the first may have been lost. The rule runs outside any transaction: it may take a while.

    Raises:
        StoreUnavailableError: Postgres is away; the report is safe, and sending it again asks again.
        NotFoundError: the study was deleted meanwhile.
    """
    if reported.cancel:
        return Decision.ABANDON
    if reported.study_state is StudyState.PAUSED:
        return Decision.PAUSE
    if reported.study_state is not StudyState.ACTIVE:
        return Decision.STOP
    if last_step is None:
        return Decision.CONTINUE
    with database.transaction() as connection:
        spec = studies.get_by_id(connection, reported.study_id).spec
        rule = spec.early_stopping
        # Most reports end here, without reading every curve of the study.
        if isinstance(rule, NoStopping) or not rule.min_epochs <= last_step < spec.task.epochs:
            return Decision.CONTINUE
        records = trials.records(connection, reported.study_id)
    trial = next((record for record in records if record.id == trial_id), None)
    return Decision.CONTINUE if trial is None else decide_by_rule(spec, trial, records)
