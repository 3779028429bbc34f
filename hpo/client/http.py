"""Talk to the API as a person's program does: `Client` with blocking calls, `AsyncClient` with asyncio.

Both have the operations of `hpo.client.calls` as methods, with the same arguments. Answers are dictionaries, with their
types in `hpo.client.replies`. Workers have a client of their own, which waits through outages; these report them.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar
from urllib.parse import urljoin

import httpx

from ..errors import HpoError
from ..settings import Settings
from . import calls
from .connection import AsyncConnection, Connection
from .lines import AsyncLines, Lines, checked
from .steps import Call, Item, ItemSteps, NextLine, Operation, Pause
from .watching import watch

P = ParamSpec("P")
T = TypeVar("T")
_Run = TypeVar("_Run", bound=Callable[..., Any])

TIMEOUT_SECONDS: Final = 90.0
"""More than the service gives a statement of its database, on a machine that is busy besides."""
_CONNECT_SECONDS: Final = 10.0
"""A program takes connections while it computes, so that an address which takes none is a wrong one, or far away."""


def _blocking(make: Callable[P, Call[T] | Generator[Any, Any, T]]) -> Callable[Concatenate[Client, P], T]:
    """Return an operation as a method of `Client`."""

    def run(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(make(*args, **kwargs))

    return _documented(run, make)


def _iterating(make: Callable[P, ItemSteps[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    def run(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self.iterate(make(*args, **kwargs))

    return _documented(run, make)


def _awaiting(
    make: Callable[P, Call[T] | Generator[Any, Any, T]],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    """Return an operation as a method of `AsyncClient`."""

    async def run(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(make(*args, **kwargs))

    return _documented(run, make)


def _async_iterating(make: Callable[P, ItemSteps[T]]) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    def run(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self.iterate(make(*args, **kwargs))

    return _documented(run, make)


def _documented(run: _Run, make: Callable[..., Any]) -> _Run:
    """Give a method the name, the arguments and the docstring of its operation."""
    run.__name__, run.__doc__ = make.__name__, make.__doc__
    takes = inspect.signature(make)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    vars(run)["__signature__"] = takes.replace(
        parameters=[itself, *takes.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return run


class Client:
    """The API at `url`, with blocking calls. Safe to use from several threads; use it in a `with` block, or close it.

    Every method raises the error that the API names: `NotFoundError`, `ConflictError`, `AuthenticationError`,
    `PermissionDeniedError`, `StoreUnavailableError`; `UnreachableError` where nothing answers.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        patience_seconds: float = 0.0,
        server_file: Path | None = None,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            url: address of the service. Without it, address, token and certificates are those that the `hpo` command
                uses here: of the environment (`HPO_URL`, `HPO_TOKEN`, `HPO_CA_FILE`), else of the service of the
                data directory.
            token: proves who is asking (`hpo token create`).
            timeout: seconds that each read may take; connecting may take 10 of them.
            patience_seconds: for how long a question that changes nothing is asked again while the service is away or
                too busy to answer in time. 0 reports it at once.
            server_file, ca_file, transport: as for `Connection`.

        Raises:
            SetupError: `url` is not an address.
        """
        address = _Address(url, token, server_file, ca_file)
        self._connection = Connection(
            address.url,
            address.token,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            server_file=address.server_file,
            ca_file=address.ca_file,
            transport=transport,
        )
        self.url = self._connection.url
        self.patience_seconds = patience_seconds

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._connection.is_closed

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    create_study = _blocking(calls.create_study)
    studies = _blocking(calls.studies)
    study = _blocking(calls.study)
    pause_study = _blocking(calls.pause_study)
    resume_study = _blocking(calls.resume_study)
    stop_study = _blocking(calls.stop_study)
    edit_study = _blocking(calls.edit_study)
    rename_study = _blocking(calls.rename_study)
    note_study = _blocking(calls.note_study)
    reopen_study = _blocking(calls.reopen_study)
    train_finalists = _blocking(calls.train_finalists)
    delete_study = _blocking(calls.delete_study)
    trials = _blocking(calls.trials)
    trials_page = _blocking(calls.trials_page)
    iter_trials = _iterating(calls.iter_trials)
    trial = _blocking(calls.trial)
    trial_log = _blocking(calls.trial_log)
    confusion = _blocking(calls.confusion)
    enqueue = _blocking(calls.enqueue)
    replicate_trial = _blocking(calls.replicate_trial)
    cancel_trial = _blocking(calls.cancel_trial)
    delete_trial = _blocking(calls.delete_trial)
    import_trials = _blocking(calls.import_trials)
    curves = _blocking(calls.curves)
    best = _blocking(calls.best)
    answer = _blocking(calls.answer)
    export = _blocking(calls.export)
    events = _blocking(calls.events)
    watch = _iterating(watch)
    workers = _blocking(calls.workers)
    release_workers = _blocking(calls.release_workers)
    openings = _blocking(calls.openings)
    keep_opening = _blocking(calls.keep_opening)
    health = _blocking(calls.health)
    tokens = _blocking(calls.tokens)
    create_token = _blocking(calls.create_token)
    revoke_token = _blocking(calls.revoke_token)
    login_path = _blocking(calls.login_path)

    def login_link(self) -> str:
        """Return a new address that logs a browser into the dashboard, once."""
        return urljoin(self.url + "/", self.login_path().lstrip("/"))

    def run(self, steps: Call[T] | Generator[Any, Any, T]) -> T:
        """Carry out an operation and return its result."""
        operation = Operation(iter(steps), patience_seconds=self.patience_seconds)
        for _ in self._items(operation):
            raise AssertionError("an operation with items is for `iterate`")
        return operation.result  # type: ignore[return-value]  # it has ended

    def iterate(self, steps: ItemSteps[T]) -> Iterator[T]:
        """Carry out an operation and yield what it hands out."""
        return self._items(Operation(steps))

    def _items(self, operation: Operation[Any]) -> Iterator[Any]:
        with Lines(self._connection) as lines:
            while (step := operation.next_step()) is not None:
                try:
                    match step:
                        case Item():
                            yield step.value
                        case Pause():
                            time.sleep(step.seconds)
                        case NextLine():
                            operation.answer(lines.next(step.call))
                        case Call():
                            answer = self._connection.send(step.method, step.path, **step.request)
                            operation.answer(step.read(checked(answer, step, self.url)))
                except HpoError as error:
                    operation.fail(error)


class AsyncClient:
    """The API at `url`, with asyncio and the methods of `Client`. Use it in an `async with` block, or close it."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        patience_seconds: float = 0.0,
        server_file: Path | None = None,
        ca_file: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet. The arguments are those of `Client`.

        Raises:
            SetupError: `url` is not an address.
        """
        address = _Address(url, token, server_file, ca_file)
        self._connection = AsyncConnection(
            address.url,
            address.token,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            server_file=address.server_file,
            ca_file=address.ca_file,
            transport=transport,
        )
        self.url = self._connection.url
        self.patience_seconds = patience_seconds

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._connection.is_closed

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    create_study = _awaiting(calls.create_study)
    studies = _awaiting(calls.studies)
    study = _awaiting(calls.study)
    pause_study = _awaiting(calls.pause_study)
    resume_study = _awaiting(calls.resume_study)
    stop_study = _awaiting(calls.stop_study)
    edit_study = _awaiting(calls.edit_study)
    rename_study = _awaiting(calls.rename_study)
    note_study = _awaiting(calls.note_study)
    reopen_study = _awaiting(calls.reopen_study)
    train_finalists = _awaiting(calls.train_finalists)
    delete_study = _awaiting(calls.delete_study)
    trials = _awaiting(calls.trials)
    trials_page = _awaiting(calls.trials_page)
    iter_trials = _async_iterating(calls.iter_trials)
    trial = _awaiting(calls.trial)
    trial_log = _awaiting(calls.trial_log)
    confusion = _awaiting(calls.confusion)
    enqueue = _awaiting(calls.enqueue)
    replicate_trial = _awaiting(calls.replicate_trial)
    cancel_trial = _awaiting(calls.cancel_trial)
    delete_trial = _awaiting(calls.delete_trial)
    import_trials = _awaiting(calls.import_trials)
    curves = _awaiting(calls.curves)
    best = _awaiting(calls.best)
    answer = _awaiting(calls.answer)
    export = _awaiting(calls.export)
    events = _awaiting(calls.events)
    watch = _async_iterating(watch)
    workers = _awaiting(calls.workers)
    release_workers = _awaiting(calls.release_workers)
    openings = _awaiting(calls.openings)
    keep_opening = _awaiting(calls.keep_opening)
    health = _awaiting(calls.health)
    tokens = _awaiting(calls.tokens)
    create_token = _awaiting(calls.create_token)
    revoke_token = _awaiting(calls.revoke_token)
    login_path = _awaiting(calls.login_path)

    async def login_link(self) -> str:
        """Return a new address that logs a browser into the dashboard, once."""
        return urljoin(self.url + "/", (await self.login_path()).lstrip("/"))

    async def run(self, steps: Call[T] | Generator[Any, Any, T]) -> T:
        """Carry out an operation and return its result."""
        operation = Operation(iter(steps), patience_seconds=self.patience_seconds)
        async for _ in self._items(operation):
            raise AssertionError("an operation with items is for `iterate`")
        return operation.result  # type: ignore[return-value]  # it has ended

    def iterate(self, steps: ItemSteps[T]) -> AsyncIterator[T]:
        """Carry out an operation and yield what it hands out."""
        return self._items(Operation(steps))

    async def _items(self, operation: Operation[Any]) -> AsyncIterator[Any]:
        async with AsyncLines(self._connection) as lines:
            while (step := operation.next_step()) is not None:
                try:
                    match step:
                        case Item():
                            yield step.value
                        case Pause():
                            await asyncio.sleep(step.seconds)
                        case NextLine():
                            operation.answer(await lines.next(step.call))
                        case Call():
                            answer = await self._connection.send(step.method, step.path, **step.request)
                            operation.answer(step.read(checked(answer, step, self.url)))
                except HpoError as error:
                    operation.fail(error)


class _Address:
    """Where the service is, and what it is asked with: what was given, else the settings of this machine."""

    def __init__(self, url: str | None, token: str | None, server_file: Path | None, ca_file: Path | None) -> None:
        self.url, self.token, self.server_file, self.ca_file = url or "", token, server_file, ca_file
        if url is None:
            settings = Settings.load()
            self.url, self.token = settings.api_url, token or settings.token
            # A token of one's own may be for another service, such as one behind a tunnel.
            self.server_file = server_file or (settings.proving_file if token is None else None)
            self.ca_file = ca_file or settings.ca_file
