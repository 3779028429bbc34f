"""The page of a study, and its buttons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import yaml
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from hpo.errors import ConflictError, SpecError, SpecIssue
from hpo.service import data_versions, importance, notices, reopening
from hpo.service.finishing import end_finished_studies
from hpo.spec.finalists import FinalistsConfig
from hpo.store import (
    Database,
    answers,
    budgets,
    data_sets,
    finalists,
    notes,
    overview,
    studies,
    trials,
    waiting,
    workers,
)
from hpo.store.studies import StudyRow
from hpo.trial import StudyState, TrialState

from ..auth.forms import GuardedForm, Looking
from ..auth.scopes import Admin
from ..names import StudyName
from ..pages import paths
from ..pages.curves import MOST_CURVES
from ..pages.frame import Viewer
from ..pages.study import RefusedNote, StudyMaterial, leading_trials, study_page
from ..state import ApiState, State

router = APIRouter(prefix="/studies/{name}", include_in_schema=False)

MOST_ENDED: Final = 2_000
"""Trials in the figure of the progress: the latest."""
MOST_RUNNING: Final = 64
MOST_WAITING: Final = 6
MOST_NAMED: Final = 20
"""Failures, and trials that were stopped, that are listed one by one."""
MOST_EVENTS: Final = 40
_LIMITS: Final[Mapping[str, type[int] | type[float]]] = {
    "trials": int,
    "gpu_hours": float,
    "wall_hours": float,
    "max_failed": int,
}
"""The fields of the form of a budget."""


@router.get("")
def show_study(state: State, viewer: Looking, name: StudyName) -> HTMLResponse:
    """Show what a study has found, what runs, what it cost, and what comes next."""
    with state.database.transaction() as connection:
        material = _read(connection, studies.get(connection, name), state.database)
    return study_page(material, now=datetime.now(UTC), viewer=viewer)


def _read(connection: Connection, study: StudyRow, database: Database) -> StudyMaterial:
    shown = answers.at_once(connection, [study], database)[study.id]
    answer = shown.answer
    first = max(sum(study.counts.values()) - MOST_ENDED, 0)
    running = trials.page(connection, study.id, after=-1, states=[TrialState.RUNNING], limit=MOST_RUNNING)
    with_curves = {r.id: r for r in trials.by_ids(connection, [r.id for r in running[:MOST_CURVES]])}
    missing = waiting.missing_files(connection)
    return StudyMaterial(
        study=study,
        shown=shown,
        ended=overview.results(connection, study.id, after=first - 1, limit=MOST_ENDED),
        running=[with_curves.get(record.id, record) for record in running],
        best=None if answer is None else trials.get(connection, study.id, answer.winner.chosen),
        versions=overview.dataset_versions(connection, study.id, leading_trials(answer)),
        waiting=trials.page(connection, study.id, after=-1, states=[TrialState.SUGGESTED], limit=MOST_WAITING),
        failed=overview.latest_ended(connection, study.id, TrialState.FAILED, limit=MOST_NAMED),
        stopped=overview.latest_ended(connection, study.id, TrialState.STOPPED, limit=MOST_NAMED),
        happenings=overview.latest_events(connection, study.id, limit=MOST_EVENTS),
        importance=importance.last(connection, study.id),
        data_changed=data_versions.data_changed(connection, study.id),
        few_clips=notices.few_clips_of(connection, study.id),
        data_set=data_sets.seen(connection, study.id),
        workers=workers.list_all(connection),
        missing={
            worker: found.message for worker, all_ in missing.items() for found in all_ if found.study == study.name
        },
        spec_text=yaml.safe_dump(
            study.spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
        ),
    )


@router.post("/pause")
def pause_study(state: State, who: Admin, name: StudyName, _: GuardedForm) -> RedirectResponse:
    """Pause the study."""
    return _moved(state, name, StudyState.PAUSED, actor=who.name)


@router.post("/resume")
def resume_study(state: State, who: Admin, name: StudyName, _: GuardedForm) -> RedirectResponse:
    """Resume the study."""
    return _moved(state, name, StudyState.ACTIVE, actor=who.name)


@router.post("/stop")
def stop_study(state: State, who: Admin, name: StudyName, _: GuardedForm) -> RedirectResponse:
    """Stop the study for good."""
    return _moved(state, name, StudyState.STOPPED, actor=who.name)


@router.post("/budget")
def change_budget(state: State, who: Admin, name: StudyName, form: GuardedForm) -> RedirectResponse:
    """Give the study other limits."""
    with state.database.transaction() as connection:
        changes = _changes(studies.get(connection, name), form)
        if changes:
            budgets.change_budget(connection, name, changes, actor=who.name, revision=revision_of(form))
    end_finished_studies(state.database)
    return RedirectResponse(paths.of_study(name), status_code=303)


@router.post("/reopen")
def reopen_study(state: State, who: Admin, name: StudyName, form: GuardedForm) -> RedirectResponse:
    """Let the study search on, with other limits."""
    with state.database.transaction() as connection:
        changes = _changes(studies.get(connection, name), form)
        reopening.reopen(connection, name, changes, actor=who.name, revision=revision_of(form))
    return RedirectResponse(paths.of_study(name), status_code=303)


@router.post("/note", response_model=None)
def keep_note(
    state: State, viewer: Looking, who: Admin, name: StudyName, form: GuardedForm
) -> HTMLResponse | RedirectResponse:
    """Keep what a person notes about the study; what cannot be kept comes back with the reason."""
    if "note" not in form:
        raise SpecError([SpecIssue(path="note", message="this field is required; an empty one removes the note")])
    typed = form["note"].replace("\r\n", "\n")
    length = len(notes.as_kept(typed) or "")
    if length > notes.MOST_CHARACTERS:
        problem = f"A note has at most {notes.MOST_CHARACTERS:,} characters, this one has {length:,}."
        return _note_again(state, viewer, name, RefusedNote(text=typed, problem=problem, status=422))
    try:
        with state.database.transaction() as connection:
            notes.set_note(connection, name, typed, actor=who.name, replaces=form.get("replaces"))
    except ConflictError:
        problem = (
            "Somebody has changed the note since you loaded this page. It now says what stands above: take over from "
            "it what is to stay, and keep yours."
        )
        return _note_again(state, viewer, name, RefusedNote(text=typed, problem=problem, status=409))
    return RedirectResponse(paths.of_study(name), status_code=303)


def _note_again(state: ApiState, viewer: Viewer, name: str, refused: RefusedNote) -> HTMLResponse:
    with state.database.transaction() as connection:
        material = _read(connection, studies.get(connection, name), state.database)
    return study_page(material, now=datetime.now(UTC), viewer=viewer, refused=refused)


@router.post("/finalists")
def train_finalists(state: State, who: Admin, name: StudyName, form: GuardedForm) -> RedirectResponse:
    """Have the best configurations trained again with fresh seeds."""
    with state.database.transaction() as connection:
        wanted = studies.get(connection, name).finalists or FinalistsConfig()
        finalists.ask_for(connection, name, wanted, end_search="end_search" in form, actor=who.name)
    end_finished_studies(state.database)
    return RedirectResponse(paths.of_study(name), status_code=303)


def _moved(state: ApiState, name: str, target: StudyState, *, actor: str) -> RedirectResponse:
    with state.database.transaction() as connection:
        studies.set_state(connection, name, target, actor=actor)
    return RedirectResponse(paths.of_study(name), status_code=303)


def revision_of(form: Mapping[str, str]) -> int | None:
    """Return which revision of the spec the form was filled in for; a program may leave that out."""
    try:
        return int(form["revision"]) if "revision" in form else None
    except ValueError as error:
        raise SpecError([SpecIssue(path="revision", message="this is not a whole number")]) from error


def _changes(study: StudyRow, form: Mapping[str, str]) -> dict[str, Any]:
    """Return the limits of a form that differ from those of the study; an empty field takes a limit away.

    Raises:
        SpecError: names the fields that are not numbers.
    """
    changes: dict[str, Any] = {}
    issues = []
    for name, kind in _LIMITS.items():
        if name not in form:
            continue
        try:
            value = kind(form[name]) if form[name].strip() else None
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            issues.append(SpecIssue(path=f"budget.{name}", message=f"{form[name][:100]!r} is not {what}"))
            continue
        if value != getattr(study.spec.budget, name):
            changes[name] = value
    if issues:
        raise SpecError(issues)
    return changes
