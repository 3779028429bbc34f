"""The page of a trial, and its buttons."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from hpo.answer.evidence import evidence_of
from hpo.store import Database, answers, confusions, finalists, lifecycle, logs, overview, studies, trials, waiting
from hpo.store.studies import StudyRow

from ..auth.forms import GuardedForm, Looking
from ..auth.scopes import Admin
from ..names import StudyName, TrialNumber
from ..pages import paths
from ..pages.trial import TrialMaterial, trial_page
from ..state import State

router = APIRouter(prefix="/studies/{name}/trials/{number}", include_in_schema=False)

MOST_EVENTS: Final = 40


@router.get("")
def show_trial(state: State, viewer: Looking, name: StudyName, number: TrialNumber) -> HTMLResponse:
    """Show a trial beside the best one."""
    with state.database.transaction() as connection:
        material = _read(connection, studies.get(connection, name), number, state.database)
    return trial_page(material, now=datetime.now(UTC), viewer=viewer)


def _read(connection: Connection, study: StudyRow, number: int, database: Database) -> TrialMaterial:
    trial = trials.get(connection, study.id, number)
    shown = answers.at_once(connection, [study], database)[study.id]
    answer = shown.answer
    known = None if answer is None else evidence_of(answer, number)
    return TrialMaterial(
        study=study,
        shown=shown,
        trial=trial,
        best=None if answer is None else trials.get(connection, study.id, answer.winner.chosen),
        evidence=[] if known is None else known.lines(),
        log=logs.read(connection, trial) if trial.attempt else None,
        ran=trials.environment_of(connection, trial.id),
        confusion=confusions.find(connection, trial.id),
        is_being_cancelled=trials.is_being_cancelled(connection, trial.id),
        waits_for=waiting.reason(connection, trial.id),
        happenings=overview.events_of_trial(connection, trial.id, limit=MOST_EVENTS),
    )


@router.post("/cancel")
def cancel_trial(state: State, who: Admin, name: StudyName, number: TrialNumber, _: GuardedForm) -> RedirectResponse:
    """Cancel the trial."""
    with state.database.transaction() as connection:
        record = trials.get(connection, studies.id_of(connection, name), number)
        lifecycle.cancel(connection, record.id, actor=who.name)
    return RedirectResponse(paths.of_trial(name, number), status_code=303)


@router.post("/delete")
def delete_trial(state: State, who: Admin, name: StudyName, number: TrialNumber, _: GuardedForm) -> RedirectResponse:
    """Take a trial that has ended out of its study."""
    with state.database.transaction() as connection:
        record = trials.get(connection, studies.id_of(connection, name), number)
        lifecycle.discard(connection, record.id, actor=who.name)
    return RedirectResponse(paths.of_study(name), status_code=303)


@router.post("/replicate")
def train_again(state: State, who: Admin, name: StudyName, number: TrialNumber, _: GuardedForm) -> RedirectResponse:
    """Have the configuration trained again with another seed, and show that trial."""
    with state.database.transaction() as connection:
        made = finalists.train_again(connection, name, number, actor=who.name)
    return RedirectResponse(paths.of_trial(name, made.number), status_code=303)
