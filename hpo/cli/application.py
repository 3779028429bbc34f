"""The application as `hpo serve` runs it, in one process or in several."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..settings import ServedAddress, Settings
from .listening import Listening

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from ..store import Database


def make_application(
    settings: Settings,
    database: Database,
    listening: Listening,
    served: ServedAddress,
    *,
    key: bytes,
    processes: int = 1,
    worker_connections: int = 15,
) -> FastAPI:
    """Return the application as one of several processes serves it. `key` hashes the tokens."""
    from api.app import create_app
    from api.config import ApiConfig, Identity
    from models import list_models

    from .. import traces
    from .files import remove_study_files
    from .preview import preview
    from .spec_check import search_fragment, validation_clips, with_models

    traces.start("hpo-api")
    return create_app(
        database,
        ApiConfig(
            key=key,
            identity=Identity(url=served.url, key=served.key),
            names=listening.names,
            processes=processes,
            worker_connections=worker_connections,
        ),
        check_spec=with_models,
        fragments=search_fragment,
        count_clips=validation_clips,
        preview=preview,
        list_models=list_models,
        remove_files=partial(remove_study_files, settings.checkpoint_dir),
    )


def uvicorn_server(application: FastAPI, listening: Listening) -> uvicorn.Server:
    """Return what serves an application until a signal."""
    import uvicorn

    options = listening.uvicorn_options()
    # Without `log_config` it writes through our handler, which lets nothing in a line steer the terminal.
    logs: dict[str, Any] = {"log_level": "warning", "log_config": None, "access_log": False}
    return uvicorn.Server(uvicorn.Config(application, timeout_graceful_shutdown=5, **logs, **options))
