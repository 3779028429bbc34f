"""The page of the workers, and letting one have trials again."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

from hpo.errors import NotFoundError
from hpo.store import optimizers, quarantine, studies, waiting, workers

from ..auth.forms import GuardedForm, Looking
from ..auth.scopes import Admin
from ..pages import paths
from ..pages.workers import workers_page
from ..state import State

router = APIRouter()


@router.get(paths.WORKERS, include_in_schema=False)
def show_workers(state: State, viewer: Looking) -> HTMLResponse:
    """Show what every worker does, which get no trials and why, what studies lack, and what optimizers do."""
    with state.database.transaction() as connection:
        rows = workers.list_all(connection)
        missing = waiting.missing_files(connection)
        unfinished = studies.list_unfinished(connection)
        alive = optimizers.list_alive(connection)
    degraded = {study.name: study.degraded for study in unfinished if study.degraded is not None}
    return workers_page(rows, missing, now=datetime.now(UTC), viewer=viewer, degraded=degraded, optimizers=alive)


@router.post(f"{paths.WORKERS}/release", include_in_schema=False)
def release_worker(state: State, who: Admin, form: GuardedForm) -> RedirectResponse:
    """Let a worker, or all workers of a host, have trials again."""
    with state.database.transaction() as connection:
        if "host" in form:
            quarantine.release_host(connection, form["host"], actor=who.name)
        elif "name" in form:
            quarantine.release(connection, form["name"], actor=who.name)
        else:
            raise NotFoundError("the form names neither a worker nor a host")
    return RedirectResponse(paths.WORKERS, status_code=303)
