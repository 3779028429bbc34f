"""The application: every resource, the gate before them, the upkeep beside them, the dashboard behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from hpo.results.export import Export
from hpo.service.creation import SpecCheck
from hpo.service.fallback import Fallback
from hpo.service.notices import ClipCount
from hpo.service.upkeep import upkeep
from hpo.spec import Fragments, StudySpec
from hpo.store import Database

from . import problems
from .auth import login
from .auth.gate import Gate
from .browser import assets, data_sets, docs, edit, home, live, new, study, table, trial
from .browser import workers as workers_page
from .browser.errors import ErrorPages
from .config import ApiConfig
from .dashboard.mount import DashboardRoute
from .lane import Lane
from .rate import RateLimiter
from .state import ApiState, FileRemoval, SpecPreview
from .v1 import (
    best,
    checkpoints,
    events,
    health,
    identity,
    imports,
    leases,
    logs,
    metrics,
    openings,
    studies,
    tokens,
    trials,
    workers,
)
from .waiting import hearing

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

DESCRIPTION = """Hyperparameter Bayesian optimization for video action recognition.

Send `Authorization: Bearer TOKEN` with every call; `hpo token show` prints the token of this machine. Errors are
problem details (RFC 9457): `detail` is a sentence, `errors` names each wrong field. A 503 means that the database is
away; nothing was changed, and repeating the call after `Retry-After` seconds is safe.
"""

GUESSES = 20
"""Wrong codes and tokens that one address may send to the login page in a minute."""
LEAST_GUESSES = 3
"""What each of many processes allows: a person mistypes."""


def create_app(
    database: Database,
    config: ApiConfig,
    *,
    check_spec: SpecCheck | None = None,
    fragments: Fragments | None = None,
    count_clips: ClipCount | None = None,
    remove_files: FileRemoval | None = None,
    preview: SpecPreview | None = None,
    list_models: Callable[[], Sequence[str]] | None = None,
) -> FastAPI:
    """Make the application. It holds no state that another replica would miss.

    `check_spec` adds the rules of models before a study is stored, and refuses what no worker could build; `fragments`
    knows what the space of a spec may include by name; `count_clips` says how many clips its trials validate on;
    `remove_files` removes the checkpoint files of a deleted study; `preview` says what a spec would do;
    `list_models` names the zoo.
    """
    state = ApiState(
        database=database,
        lane=Lane(database, connections=config.worker_connections),
        config=config,
        fallback=Fallback(after_seconds=config.fallback_seconds),
        logins=RateLimiter(attempts=max(GUESSES // config.processes, LEAST_GUESSES), seconds=60.0),
        check_spec=check_spec,
        fragments=fragments,
        count_clips=count_clips,
        remove_files=remove_files,
        preview=preview,
        list_models=list_models,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with closing(state.lane), upkeep(database, seconds=config.upkeep_seconds), hearing(database, state.waiters):
            yield

    app = _Application(
        title="video-hpo",
        version=version("video-hpo"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    app.state.hpo = state
    problems.install(app)
    v1 = (
        leases,  # first: routes are compared one by one, and most calls are of workers
        studies,
        trials,
        imports,
        logs,
        best,
        events,
        checkpoints,
        workers,
        openings,
        tokens,
        health,
        identity,
        metrics,
    )
    pages = (login, assets, docs, home, new, live, study, edit, table, trial, data_sets, workers_page)
    for resource in (*v1, *pages):
        app.include_router(resource.router)
    app.add_middleware(Gate, state=state)
    app.add_middleware(problems.LastResort)  # the gate's own faults are covered too
    app.add_middleware(ErrorPages)  # the outermost: whatever was wrong, a person sees a page
    if config.dashboard:
        app.router.routes.append(DashboardRoute(lambda: _storage(database)))
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Describe the service, the schemas of bodies that are read by hand included."""
        if not self.openapi_schema:
            document = super().openapi()
            _, extra = models_json_schema(
                [(model, "validation") for model in (StudySpec, Export, problems.Problem)],
                ref_template="#/components/schemas/{model}",
            )
            schemas = {**extra.get("$defs", {}), **document["components"]["schemas"]}
            schemas.pop("TaskConfig", None)  # the interface of all kinds of task is never a body; the kinds are
            document["components"]["schemas"] = schemas
        return super().openapi()


def _storage(database: Database) -> BaseStorage:
    from .dashboard.sampling import SampledStorage
    from .dashboard.source import DatabaseSource

    return SampledStorage(DatabaseSource(database))
