"""Several processes of the API behind one port.

They share the listening socket of `hpo serve`, which serves nothing itself: it starts again those that end, and runs
Postgres and the optimizer. A process that is killed takes only its own connections with it: those that nobody has
accepted yet wait in the shared socket for another one (with SO_REUSEPORT each process would have a queue of its own).
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import typer

from ..installation import child_environment, python_command
from ..settings import ServedAddress, Settings
from .app import app, settings_of
from .application import make_application, uvicorn_server
from .listening import Listening
from .logging_to_stderr import log_to_stderr
from .supervision import Program, kept_running

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger("hpo.serve")

MOST_PROCESSES: Final = 16
_CONNECTIONS: Final = 60
"""To the database, by all processes together; Postgres allows 100 by itself."""


def pool_size(processes: int) -> int:
    """Return how many connections to the database each of several processes has at most, besides the listening one."""
    return max(_CONNECTIONS // processes, 2)


def worker_connections(processes: int) -> int:
    """Return how many of them are for the calls of workers about trials."""
    return pool_size(processes) // 2


@contextmanager
def api_processes(
    settings: Settings,
    listening: Listening,
    served: ServedAddress,
    listener: socket.socket,
    *,
    key: bytes,
    count: int,
) -> Iterator[None]:
    """Serve the API from `count` processes while the block runs.

    The address of the database, which `settings` have, and the key of the tokens go through a pipe: an environment can
    be read as long as the process lives, and is easily handed on.
    """
    told = {
        "descriptor": listener.fileno(),
        "listening": listening.to_json(),
        "served": asdict(served),
        "processes": count,
        "database_url": settings.database_url,
        "key": key.hex(),
    }

    def on_end(process: subprocess.Popen[bytes]) -> None:
        log.warning("process %d of the API ended with status %s; another is started", process.pid, process.returncode)

    from api.timings import SHARED_FOLDER

    with tempfile.TemporaryDirectory(prefix="hpo-timings-") as timings:
        program = Program(
            name="api",
            command=python_command("from hpo.cli import main; main()", "--home", str(settings.home), "api-process"),
            environment={**child_environment(), SHARED_FOLDER: timings},
            first_line=json.dumps(told),
            descriptors=[listener.fileno()],
            on_end=on_end,
        )
        with kept_running(program, count=count):
            yield


@app.command(hidden=True)
def api_process(context: typer.Context) -> None:
    """Serve the API on an inherited socket; `hpo serve --processes` starts this."""
    from api.auth import load_secret

    from ..store import Database

    log_to_stderr()
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    settings, listening = settings_of(context), Listening.from_json(told["listening"])
    # An `hpo serve` of an earlier release, whose installation was upgraded while it runs, has both in the environment.
    key = bytes.fromhex(told["key"]) if "key" in told else load_secret(settings.home)
    database_url = str(told.get("database_url") or settings.database_url)
    processes = int(told["processes"])
    for_workers = worker_connections(processes)
    database = Database(database_url, pool_size=pool_size(processes) - for_workers, max_overflow=0)
    try:
        application = make_application(
            settings,
            database,
            listening,
            ServedAddress(**told["served"]),
            key=key,
            processes=processes,
            worker_connections=for_workers,
        )
        server = uvicorn_server(application, listening)
        threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
        server.run(sockets=[socket.socket(fileno=told["descriptor"])])
    finally:
        database.close()


def _stop_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True
