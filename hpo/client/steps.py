"""Operations of the API as steps, so that each is written once and runs with blocking calls as well as with asyncio.

An operation is a generator. It yields what it needs next (an answer, a pause, a stream of lines), is sent the outcome,
and returns its result; errors of calls are raised in it. `Client` and `AsyncClient` only carry the steps out. Iterators
also yield `Item`s, which are handed on to the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

import httpx

from ..errors import HpoError, StoreUnavailableError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
AGAIN_SECONDS: Final = 1.0
"""The pause before a call is made again."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read. `yield from call` makes it within an operation."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_answer: Callable[[httpx.Response], bool] = lambda _: False
    """Whether an answer other than 2xx is read like one."""
    may_repeat: bool = False
    """Whether a second such request does no harm, though it is no GET."""

    @property
    def request(self) -> dict[str, Any]:
        """What is sent, as arguments of `httpx.Client.request` after the method and the path."""
        body = {} if self.json is None else {"json": self.json}
        return {**body, "params": dict(self.params), "headers": dict(self.headers)}

    def __iter__(self) -> Generator[Step, Any, T]:
        """Make the call and return its answer."""
        answer: T = yield self
        return answer


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NextLine:
    """The next line of the answer to `call`, which is opened with the first one; None where it has ended."""

    call: Call[Any]


@dataclass(frozen=True, slots=True)
class Item(Generic[T_co]):
    """Something for the caller."""

    value: T_co


Step = Call[Any] | Pause | NextLine
Steps = Generator[Step, Any, T]
"""An operation with a result."""
ItemSteps = Generator[Step | Item[T], Any, None]
"""An operation that hands out items one by one."""


class Operation(Generic[T]):
    """Runs the steps of an operation: what is needed next, and what came of it.

    A call that may be repeated is made again for `patience_seconds` while the service is away or too busy to answer.
    """

    def __init__(self, steps: Generator[Any, Any, T], *, patience_seconds: float = 0.0) -> None:
        self._steps = steps
        self._patience_seconds = patience_seconds
        self._step: Step | Item[Any] | None = None
        self._again: list[Step] = []
        self._away_since: float | None = None
        self._answer: Any = None
        self._error: HpoError | None = None
        self.result: T | None = None

    def next_step(self) -> Step | Item[Any] | None:
        """Return what is needed next; None at the end, when `result` is there."""
        if self._again:
            return self._again.pop(0)
        answer, error = self._answer, self._error
        self._answer = self._error = None
        try:
            found: Step | Item[Any] = self._steps.send(answer) if error is None else self._steps.throw(error)
        except StopIteration as done:
            self.result = done.value
            return None
        self._step = found
        return found

    def answer(self, answer: Any) -> None:
        """Say what the step has given."""
        self._answer, self._away_since = answer, None

    def fail(self, error: HpoError) -> None:
        """Say why the step has given nothing."""
        step = self._step
        may_repeat = isinstance(step, Call) and (step.may_repeat or step.method == "GET")
        if isinstance(step, Call) and may_repeat and isinstance(error, StoreUnavailableError):
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since < self._patience_seconds:
                self._again = [Pause(AGAIN_SECONDS), step]
                return
        self._error, self._away_since = error, None
