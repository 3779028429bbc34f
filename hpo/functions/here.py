"""A service and workers on this machine, for as long as a block lasts: what `hpo.tune` runs on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from ..client.http import Client
from ..errors import SetupError, StoreUnavailableError
from ..installation import child_environment, end, ending_with_parent, in_background, program_path, start_in_background
from ..served import WHILE_USED, create_home, starting, used
from ..settings import Settings, read_server_file

START_SECONDS: Final = 300.0
PATIENCE_SECONDS: Final = 120.0
"""How long the service may be away: it starts again what dies."""
_AGAIN_SECONDS: Final = 0.2
_T = TypeVar("_T")
_LOG_CHARACTERS: Final = 2000


@contextmanager
def service(settings: Settings) -> Iterator[Client]:
    """Serve the data directory, unless that is done, and return a client of the service.

    A service that was started here ends with the last program that uses it, however that ends.

    Raises:
        SetupError: the service did not start.
    """
    with ExitStack() as stack:
        process: subprocess.Popen[bytes] | None = None
        if settings.proving_file is not None:
            process = stack.enter_context(_served(settings))
            settings = Settings.load(home=settings.home)
        if settings.token is None:
            raise SetupError(f"there is no token for {settings.api_url}: set HPO_TOKEN, or leave HPO_URL out")
        client = stack.enter_context(
            Client(settings.api_url, settings.token, server_file=settings.proving_file, ca_file=settings.ca_file)
        )
        # Its address is known a moment before it answers.
        patiently(client.health, while_lives=process, settings=settings)
        client.patience_seconds = PATIENCE_SECONDS
        yield client


def patiently(
    call: Callable[[], _T], *, while_lives: subprocess.Popen[bytes] | None = None, settings: Settings | None = None
) -> _T:
    """Return what a call of the service returns, calling again while the service does not answer, but not for ever.

    Raises:
        SetupError: the process that serves has ended.
        HpoError: as the call, after `PATIENCE_SECONDS`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except StoreUnavailableError:
            if while_lives is not None and while_lives.poll() is not None and settings is not None:
                raise _not_started(settings) from None
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_SECONDS)


@contextmanager
def workers(
    settings: Settings, arguments: Sequence[Sequence[str]], variables: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run a worker for each list of arguments; their logs are in the data directory.

    Args:
        variables: further environment variables.
    """
    with ExitStack() as stack:
        processes = []
        for number, one in enumerate(arguments):
            command = ending_with_parent([program_path("hpo-worker"), *one])
            log, environment = _log(settings, _worker_name(number)), _environment(settings, variables)
            processes.append(stack.enter_context(in_background(command, log=log, environment=environment)))
        yield processes


def log_of_worker(settings: Settings, number: int) -> str:
    """Return the end of what a worker has logged."""
    try:
        return _log(settings, _worker_name(number)).read_text(errors="replace")[-_LOG_CHARACTERS:].strip()
    except OSError:
        return ""


@contextmanager
def _served(settings: Settings) -> Iterator[subprocess.Popen[bytes] | None]:
    """Have the data directory served during the block; what is yielded is the process, where this program started it.

    Several programs may begin at once, and use the service of whichever is first.
    """
    create_home(settings.home)
    with used(settings.home) as is_last:
        process = None
        with starting(settings.home):
            if read_server_file(settings.server_file) is None:
                command = [program_path("hpo"), "serve", "--port", "0"]
                environment = _environment(settings, {WHILE_USED: "1"})
                process = start_in_background(command, log=_log(settings, "serve"), environment=environment)
                try:
                    _await_service(settings, process)
                except BaseException:  # Ctrl-C too: nobody else knows of it yet
                    end(process)
                    raise
        try:
            yield process
        finally:
            # Where others use it, it ends by itself after the last of them.
            if process is not None and is_last():
                end(process)


def _worker_name(number: int) -> str:
    return f"tune-worker-{number}"


def _log(settings: Settings, name: str) -> Path:
    return settings.home / f"{name}.log"


def _environment(settings: Settings, variables: Mapping[str, str]) -> dict[str, str]:
    return {**child_environment(), "HPO_HOME": str(settings.home), **variables}


def _await_service(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while read_server_file(settings.server_file) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise _not_started(settings)
        time.sleep(0.05)


def _not_started(settings: Settings) -> SetupError:
    log = _log(settings, "serve")
    said = log.read_text(errors="replace")[-_LOG_CHARACTERS:].strip()
    return SetupError(f"the service did not start; its log {log} ends with:\n{said}")
