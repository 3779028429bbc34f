"""The page of all studies."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from hpo.store import answers, studies, workers

from ..auth.forms import Looking
from ..pages import paths
from ..pages.home import home_page, latest_of
from ..state import State

router = APIRouter()


@router.get(paths.HOME, include_in_schema=False)
def show_home(state: State, viewer: Looking) -> HTMLResponse:
    """Show all studies, and what the workers do."""
    with state.database.transaction() as connection:
        found = studies.list_all(connection)
        known = answers.at_once(connection, latest_of(found), state.database)
        unreadable = studies.list_unreadable(connection, [study.id for study in found])
        at_work = workers.list_all(connection)
    return home_page(found, known, at_work, viewer=viewer, unreadable=[str(error) for error in unreadable])
