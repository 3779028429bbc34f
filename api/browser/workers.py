"""The page of the workers."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from hpo.store import waiting, workers

from ..auth.scopes import Reader
from ..pages.workers import PATH, workers_page
from ..state import State

router = APIRouter()


@router.get(PATH, include_in_schema=False)
def show_workers(state: State, _: Reader) -> HTMLResponse:
    """Show what every worker does, and which get no trials and why."""
    with state.database.transaction() as connection:
        rows = workers.list_all(connection)
        missing = waiting.missing_files(connection)
    return workers_page(rows, missing, now=datetime.now(UTC), has_dashboard=state.config.dashboard)
