"""What the service knows of the workers of this machine, asked for beside their supervision."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from ..errors import HpoError, StoreUnavailableError

if TYPE_CHECKING:
    from ..client.http import Client

ASK_SECONDS: Final = 2.0
_END_SECONDS: Final = 1.0


class WorkerWatch:
    """Asks the service every `ASK_SECONDS`, and keeps the newest answer.

    A token for workers alone may not list them: then nothing is known, and nothing more is asked.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._host = socket.gethostname()
        self._workers: Mapping[int, Mapping[str, Any]] = {}
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_END_SECONDS)  # a service that hangs holds up nobody

    @property
    def problem(self) -> str | None:
        """Why nothing newer is known; None if the last question was answered."""
        return self._problem

    def worker(self, pid: int | None) -> Mapping[str, Any] | None:
        """Return what the service knows of the worker with this process, as `GET /v1/workers` lists it."""
        return None if pid is None else self._workers.get(pid)

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                found = self._client.workers()
            except StoreUnavailableError as error:
                self._problem = str(error)
            except HpoError as error:
                self._problem = str(error)
                return
            else:
                self._problem = None
                self._workers = {worker["pid"]: worker for worker in found if self._is_newest_here(worker, found)}
            self._stop.wait(ASK_SECONDS)

    def _is_newest_here(self, worker: Mapping[str, Any], found: Any) -> bool:
        """Return whether no worker of this host with the same number was heard of later: numbers come again."""
        same = [one for one in found if one["host"] == self._host and one["pid"] == worker["pid"]]
        return bool(same) and same[0] is worker
