"""The page that takes over a table of results from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from hpo.errors import ConflictError, SetupError, SpecError
from hpo.importing import Wishes, fit
from hpo.importing.tables import parse_table
from hpo.importing.wording import nothing_fits, sentences
from hpo.protocol import ImportRequest
from hpo.store import imports, studies

from ..auth.forms import GuardedTableForm, Looking
from ..auth.scopes import Admin
from ..names import StudyName
from ..pages.table import FIELDS, Outcome, table_page
from ..state import State

router = APIRouter(prefix="/studies/{name}/import", include_in_schema=False)


@router.get("")
def show_form(state: State, viewer: Looking, _: Admin, name: StudyName) -> HTMLResponse:
    """Show the form for a table."""
    with state.database.transaction() as connection:
        return table_page(studies.get(connection, name), viewer=viewer)


@router.post("")
def use_table(state: State, viewer: Looking, who: Admin, name: StudyName, form: GuardedTableForm) -> HTMLResponse:
    """Import the table, or say what would be imported (`look`); the page says what became of it."""
    is_look = "look" in form
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
    try:
        wishes = Wishes(names=_pairs(form, "names"), skip=frozenset(_listed(form, "skip")), given=_pairs(form, "given"))
        text = form.get("table", "").removeprefix("\ufeff")
        results = parse_table(text, path="the text", name=form.get("file", "").strip()[:100] or "of a page")
        fitted = fit(study.spec, results, wishes)
        if not fitted.trials:
            raise nothing_fits(results, fitted)
        added = None
        if not is_look:
            with state.database.transaction() as connection:
                added = imports.take_over(connection, name, ImportRequest(trials=list(fitted.trials)), actor=who.name)
        outcome = Outcome(lines=tuple(sentences(results, fitted, added)), is_done=not is_look)
    except (SetupError, SpecError, ConflictError) as error:
        status = 409 if isinstance(error, ConflictError) else 422
        outcome = Outcome(problem=str(error), status=status)
    return table_page(study, viewer=viewer, form=form, outcome=outcome)


def _listed(form: Mapping[str, str], field: str) -> list[str]:
    return [part.strip() for part in form.get(field, "").replace("\n", ",").split(",") if part.strip()]


def _pairs(form: Mapping[str, str], field: str) -> dict[str, str]:
    pairs = {}
    for text in _listed(form, field):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name or not value:
            raise SetupError(f"{FIELDS[field]}: {text!r} is no pair; write NAME=OTHER, with commas between pairs")
        pairs[name] = value
    return pairs
