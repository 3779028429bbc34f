"""`hpo serve` and `hpo optimizer`: the processes of the service."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import SetupError, StoreUnavailableError
from ..installation import child_environment, python_command
from ..served import WHILE_USED, create_home, end_when_unused, serving_home
from ..settings import ServedAddress, Settings, read_server_file
from . import home_access
from .api_processes import MOST_PROCESSES, api_processes
from .app import app, out, settings_of, written_to
from .application import make_application, uvicorn_server
from .ending import Ending, stop_at_signals
from .listening import Listening
from .logging_to_stderr import log_to_stderr
from .supervision import Program, kept_running

if TYPE_CHECKING:
    from ..store import Database

log = logging.getLogger("hpo.serve")

_SUPERVISED: Final = "HPO_SUPERVISED"
"""Set for the optimizer of `hpo serve`."""


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
    processes: Annotated[
        int, typer.Option(help="Processes that serve the API, all at the same port.", min=1, max=MOST_PROCESSES)
    ] = 1,
    worker_token_file: Annotated[
        Path | None,
        typer.Option(help="Leave a token here that may only run trials, for workers elsewhere.", show_default=False),
    ] = None,
    tokens_dir: Annotated[
        Path | None,
        typer.Option(
            help="Take over the tokens in the files admin, worker and read of this folder, as a secret of Kubernetes "
            "holds them (hpo token generate).",
            show_default=False,
        ),
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
    log_to_stderr()
    if listening.is_open:
        log.warning("without TLS: everybody between a client and %s can read the tokens", host)
    how = _Serving(
        processes=processes,
        with_optimizer=with_optimizer,
        worker_token_file=worker_token_file,
        tokens_dir=tokens_dir,
    )
    _serve(settings_of(context), listening, port, how)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """What runs, and what is left for workers."""

    processes: int
    """Of the API. One is this process itself."""
    with_optimizer: bool
    worker_token_file: Path | None
    tokens_dir: Path | None
    """Where tokens are that it takes over."""


def _serve(settings: Settings, listening: Listening, port: int, how: _Serving) -> None:
    from api.auth import load_secret

    from ..store import Database, migrate

    make_home(settings)
    # uvicorn ends its connections on SIGTERM and then sends the signal again, to the handler that was installed
    # before: an exception there unwinds this stack, which stops the optimizer and Postgres.
    ending = Ending()
    ending.listen()
    if os.environ.get(WHILE_USED):
        end_when_unused(settings.home)
    with ExitStack() as stack:
        is_owner = stack.enter_context(own_home(settings))
        key = load_secret(settings.home)
        listener = _listen(listening.host, port)
        database_url = stack.enter_context(postgres(settings))
        migrate(database_url)
        # Where others serve, this one only starts them: the connections are theirs.
        database = Database(database_url, **({"pool_size": 2, "max_overflow": 0} if how.processes > 1 else {}))
        stack.callback(database.close)
        if how.with_optimizer:
            stack.enter_context(_optimizer_process(settings, database, database_url))
        served = ServedAddress(
            url=listening.url(listener.getsockname()[1]),
            key=secrets.token_hex(32),
            certificate=None if listening.certificate is None else str(listening.certificate.absolute()),
        )
        if how.tokens_dir is not None:
            _take_tokens(settings, database, key, how.tokens_dir)
        _announce(settings, database, key, listening.public_url or served.url, how.worker_token_file)
        if how.processes > 1:
            connected = replace(settings, database_url=database_url)
            stack.enter_context(api_processes(connected, listening, served, listener, key=key, count=how.processes))
            stack.callback(listener.close)  # before the processes end: nobody waits in a queue that none will serve
        if is_owner:
            about = {**asdict(served), "pid": os.getpid(), "host": socket.gethostname()}
            _write_for_us(settings.server_file, json.dumps(about))
        ending.check()
        if how.processes > 1:
            threading.Event().wait()  # until a signal
        server = uvicorn_server(make_application(settings, database, listening, served, key=key), listening)
        ending.check()  # loading the application has imported a lot
        server.run(sockets=[listener])


@app.command()
def optimizer(
    context: typer.Context,
    *,
    alive_file: Annotated[
        Path | None,
        typer.Option(help="Touch this file before each step, for a probe of whether it is stuck.", show_default=False),
    ] = None,
) -> None:
    """Run an optimizer process alone; `hpo serve` starts its own."""
    # Before torch is imported: more threads make the small matrices of a Gaussian process slower, not faster.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from .. import traces
    from ..service.optimizer_process import run
    from ..store import Database

    log_to_stderr()
    traces.start("hpo-optimizer")
    # `hpo serve` says the address through a pipe: it has a password. One of an earlier release, whose installation was
    # upgraded while it runs, sets DATABASE_URL and writes nothing.
    database_url = settings_of(context).database_url
    if database_url is None and _is_supervised():
        database_url = sys.stdin.readline().strip()
    if not database_url:
        raise SetupError("set DATABASE_URL to the Postgres of the service; `hpo serve` runs its own optimizer")
    if alive_file is not None:
        with written_to(alive_file):
            alive_file.touch()
    with stop_at_signals() as stop:
        threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
        database = Database(database_url)
        try:
            run(
                database,
                owner=_owner(os.getpid()),
                stop=stop,
                on_life=(lambda: None) if alive_file is None else alive_file.touch,
            )
        finally:
            traces.stop()
            database.close()


def make_home(settings: Settings) -> None:
    """Create the data directory, for this user alone; warn where others may write into one that is there.

    Raises:
        SetupError: it cannot be made, is not writable, or is so for everybody.
    """
    try:
        create_home(settings.home)
    except OSError as error:
        raise SetupError(
            f"the data directory {settings.home} cannot be made ({error.strerror}): choose another with --home"
        ) from error
    if not os.access(settings.home, os.W_OK):
        raise SetupError(f"the data directory {settings.home} is not writable: choose another with --home")
    for sentence in home_access.warnings(settings):
        log.warning("%s", sentence)


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


def _take_tokens(settings: Settings, database: Database, key: bytes, folder: Path) -> None:
    """Take over the tokens in a folder; that of an administrator is also the one of this data directory."""
    from api.auth import take_tokens

    taken = take_tokens(database, key, folder)
    if "admin" in taken:
        _write_for_us(settings.token_file, taken["admin"])


def _announce(settings: Settings, database: Database, key: bytes, url: str, worker_token_file: Path | None) -> None:
    """Leave the tokens where clients find them, and print where the service is."""
    from api.auth import bootstrap_token, create_login_link

    token = bootstrap_token(database, key, settings.token_file)
    if worker_token_file is not None:
        bootstrap_token(database, key, worker_token_file, scope="worker")
    link = create_login_link(database, key, url, token=token)
    out.print(
        f"API         {url.rstrip('/')}/docs\nDashboard   {link}   (logs in once)\nToken       {settings.token_file}"
    )


MOST_PORT: Final = 65_535


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= MOST_PORT:
        raise SetupError(f"--port {port}: a port is a number from 0 to {MOST_PORT:,}; 0 takes any that is free")
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

    def on_end(process: subprocess.Popen[bytes]) -> None:
        log.warning(
            "the optimizer ended with status %s; it is started again, and new trials of studies that no other takes "
            "meanwhile are Sobol points",
            process.returncode,
        )
        _release_leases(database, process.pid)

    program = Program(
        name="optimizer",
        command=python_command("from hpo.cli import main; main()", "--home", str(settings.home), "optimizer"),
        environment={**child_environment(), "OMP_NUM_THREADS": "1", _SUPERVISED: "1"},
        first_line=database_url,
        on_end=on_end,
    )
    with kept_running(program):
        yield


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


def _stop_with_parent(stop: threading.Event) -> None:
    if _is_supervised():
        with suppress(OSError, ValueError):
            sys.stdin.read()
        stop.set()


def _is_supervised() -> bool:
    return bool(os.environ.get(_SUPERVISED)) and sys.stdin is not None and not sys.stdin.isatty()


def _write_for_us(path: Path, text: str) -> None:
    """Write a file that only this user can read, and that nobody reads in part."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)
