"""What may be removed of the checkpoint files that a machine has: the answer to `hpo gc` and to workers that clean up.

A machine says which trials of a study it has files of, and gets what stays of each. Before it removes weights that the
policy gives up, it asks for them by trial: what became needed since then stays.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from sqlalchemy import Connection

from ..answer.keeping import Verdict, needed, verdicts, worst_first
from ..protocol import FilesReply, FilesRequest, RemovalsRequest, TrialFiles
from ..store import answers, checkpoints, trials
from ..store.study_row import get_by_id


def what_stays(connection: Connection, request: FilesRequest) -> FilesReply:
    """Return what stays of each of the trials that the request names; trials that do not exist are left out."""
    study_id = checkpoints.study_of(connection, request.study)
    if study_id is None:
        name = checkpoints.deleted_name(connection, request.study)
        return FilesReply(study=request.study, name=name, state="unknown" if name is None else "deleted")
    asked = set(request.trials)
    study = get_by_id(connection, study_id)
    judged, order = _judged(connection, study_id)
    last = checkpoints.last_ones(connection, study_id)
    policy = study.spec.checkpoints
    return FilesReply(
        study=request.study,
        name=study.name,
        state="exists",
        quota_bytes=None if policy is None else policy.quota_bytes,
        trials=[_files(one, last.get(one.trial.id)) for one in judged if one.trial.id in asked],
        worst_first=[trial_id for trial_id in order if trial_id in asked],
    )


def give_up(connection: Connection, request: RemovalsRequest, *, actor: str) -> list[int]:
    """Return those of the trials whose weights may go, and record it for those whose last checkpoint goes.

    Until the end of the transaction nobody exports a trial of the study.
    """
    study_id = checkpoints.study_of(connection, request.study, lock=True)
    if study_id is None:
        return []
    _, order = _judged(connection, study_id)
    free = set(order).intersection(request.trials)
    checkpoints.note_removals(connection, study_id, sorted(free.intersection(request.last)), actor=actor)
    return sorted(free)


def _judged(connection: Connection, study_id: int) -> tuple[list[Verdict], list[int]]:
    study = get_by_id(connection, study_id)
    records = trials.outlines(connection, study_id)
    found = answers.read(connection, study)
    exported = checkpoints.exported(connection, study_id)
    reasons = needed(
        found,
        records,
        finalists=study.finalists,
        exported=[record.number for record in records if record.id in exported],
    )
    judged = verdicts(study.spec, records, reasons)
    return judged, worst_first(found, judged)


def _files(verdict: Verdict, last: str | None) -> TrialFiles:
    return TrialFiles(
        trial_id=verdict.trial.id,
        number=verdict.trial.number,
        attempt=verdict.trial.attempt,
        keep=verdict.keep,
        reason=verdict.reason,
        last=None if last is None else PurePosixPath(last).name,
    )
