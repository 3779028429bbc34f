"""Answers of the API, whole and line by line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final, Self

import httpx

from ..errors import SetupError, StoreUnavailableError
from .connection import AsyncConnection, Connection
from .problems import error_of, is_problem
from .steps import Call

_AWAY: Final = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
"""What a proxy answers while the service behind it starts again."""


class Lines:
    """The lines of the answer to a call; one answer is open at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._call: Call[Any] | None = None
        self._lines: Iterator[str] = iter(())
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def next(self, call: Call[Any]) -> str | None:
        """Return the next line of the answer to `call`; None at its end."""
        if call is not self._call:
            self._open.close()
            answer = self._open.enter_context(self._connection.stream(call.method, call.path, **call.request))
            if not answer.is_success:
                answer.read()
                checked(answer, call, self._connection.url)
            self._call, self._lines = call, answer.iter_lines()
        with self._connection.errors():
            return next(self._lines, None)


class AsyncLines:
    """The same for asyncio."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._call: Call[Any] | None = None
        self._lines: AsyncIterator[str] | None = None
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def next(self, call: Call[Any]) -> str | None:
        """Return the next line of the answer to `call`; None at its end."""
        if call is not self._call or self._lines is None:
            await self._open.aclose()
            answer = await self._open.enter_async_context(
                self._connection.stream(call.method, call.path, **call.request)
            )
            if not answer.is_success:
                await answer.aread()
                checked(answer, call, self._connection.url)
            self._call, self._lines = call, answer.aiter_lines()
        with self._connection.errors():
            return await anext(self._lines, None)


def checked(answer: httpx.Response, call: Call[Any], url: str) -> httpx.Response:
    """Return an answer that is one; raise the error that any other stands for."""
    if answer.is_success or call.is_answer(answer):
        return answer
    if not is_problem(answer):
        if answer.status_code in _AWAY:
            raise StoreUnavailableError(
                f"{url} answered {answer.status_code}: the service behind it is away; try again"
            )
        raise SetupError(f"{url} answered {answer.status_code} and does not look like this API; check the address")
    raise error_of(answer)
