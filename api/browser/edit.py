"""The page that changes a study, and what it sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

from hpo.errors import ConflictError, SpecError, SpecIssue, StudyExistsError
from hpo.service.finishing import end_finished_studies
from hpo.spec import dump_spec
from hpo.spec.optimizer import NAME_PATTERN
from hpo.store import edits, studies
from hpo.store.studies import StudyRow

from ..auth.forms import GuardedForm, Looking
from ..auth.scopes import Admin
from ..names import StudyName
from ..pages import paths
from ..pages.edit import Changes, Refused, changes_of, edit_page
from ..pages.study import may_change
from ..state import State
from .study import revision_of

router = APIRouter(prefix="/studies/{name}/edit", include_in_schema=False)


@router.get("")
def show_form(state: State, viewer: Looking, _: Admin, name: StudyName) -> HTMLResponse:
    """Show what of the study can be changed."""
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
    return edit_page(study, viewer=viewer, is_open=may_change(study))


@router.post("", response_model=None)
def change_study(
    state: State, viewer: Looking, who: Admin, name: StudyName, form: GuardedForm
) -> HTMLResponse | RedirectResponse:
    """Change what was changed in the form, all or nothing; what cannot be comes back with the reason."""
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
    is_open = may_change(study)
    wanted: Mapping[str, Any] = dump_spec(study.spec)
    try:
        changes = changes_of(study, form, is_open=is_open)
        wanted = changes.wanted
        with state.database.transaction() as connection:
            if changes.of_spec:
                edits.change(connection, name, changes.of_spec, actor=who.name, revision=revision_of(form))
            if changes.name is not None:
                edits.rename(connection, name, _checked_name(changes), actor=who.name)
    except SpecError as error:
        return _again(study, viewer, is_open, Refused(spec=wanted, issues=error.issues))
    except StudyExistsError as error:
        taken = [SpecIssue(path="name", message=str(error))]
        return _again(study, viewer, is_open, Refused(spec=wanted, issues=taken, status=409))
    except ConflictError as error:
        with state.database.transaction() as connection:
            study = studies.get(connection, name)
        # Upon what it is now: what somebody else has changed meanwhile is not taken back.
        wanted = changes_of(study, form, is_open=is_open).wanted
        return _again(study, viewer, may_change(study), Refused(spec=wanted, problem=str(error), status=409))
    end_finished_studies(state.database)
    return RedirectResponse(paths.of_study(changes.name or name), status_code=303)


def _again(study: StudyRow, viewer: Looking, is_open: bool, refused: Refused) -> HTMLResponse:
    return edit_page(study, viewer=viewer, is_open=is_open, refused=refused)


def _checked_name(changes: Changes) -> str:
    name = changes.name or ""
    if re.fullmatch(NAME_PATTERN, name) is None:
        message = f"{name!r} is no name: it begins with a letter or digit, and has letters, digits, '.', '_' and '-'"
        raise SpecError([SpecIssue(path="name", message=message)])
    return name
