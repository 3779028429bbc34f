"""optuna-dashboard, read-only, in this process: a WSGI application behind our authentication.

It insists on absolute paths, so it cannot be mounted below a prefix. `PREFIXES` are its paths; `api/auth/gate.py`
lets nobody reach them without a session or a token. It is loaded with the first request.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from a2wsgi import WSGIMiddleware
from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

log = logging.getLogger(__name__)

PREFIXES: Final = ("/dashboard", "/api", "/static", "/csv", "/artifacts", "/favicon.ico", "/incompatible-rdb-schema")
SAFE_METHODS: Final = ("GET", "HEAD")
CONTOUR_LIMIT: Final = 2_000
"""Trials times parameters. A contour plot is a grid of trials x trials for every pair of parameters:
at 1,000 trials of 10 parameters it would be a gigabyte of JSON."""
POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",  # the parallel-coordinate plot compiles its shaders
        "style-src 'self' 'unsafe-inline' data:",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_CONTOUR = re.compile(r"^/api/studies/(\d+)/plot/contour/?$")
# Its sampler for preferential optimization, which this service does not offer, is all that needs torch.
_NEEDS_TORCH = "optuna_dashboard.preferential.samplers.gp"


class DashboardRoute(BaseRoute):
    """Send the paths of the dashboard, and no others, to it."""

    def __init__(self, make_storage: Callable[[], BaseStorage]) -> None:
        self.dashboard = Dashboard(make_storage)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take the request if its path belongs to the dashboard."""
        wanted = scope["type"] == "http" and is_dashboard(scope["path"])
        return (Match.FULL if wanted else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self.dashboard(scope, receive, send)


class Dashboard:
    """The ASGI application: loads the real one when first asked, and passes on only what reads."""

    def __init__(self, make_storage: Callable[[], BaseStorage]) -> None:
        self._make_storage = make_storage
        self._lock = threading.Lock()
        self._loaded: tuple[ASGIApp, BaseStorage] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] not in SAFE_METHODS:
            answer = JSONResponse(
                {"reason": "The dashboard is read-only; steer studies with the `hpo` command or /v1."},
                status_code=405,
                headers={"Allow": ", ".join(SAFE_METHODS)},
            )
            await answer(scope, receive, send)
            return
        application, storage = await to_thread.run_sync(self._load)
        if refusal := await to_thread.run_sync(_refuse_contour, scope["path"], storage):
            await JSONResponse({"reason": refusal}, status_code=422)(scope, receive, send)
            return
        await application(_with_encoding(scope), receive, _guarded(send))

    def _load(self) -> tuple[ASGIApp, BaseStorage]:
        with self._lock:
            if self._loaded is None:
                storage = self._make_storage()
                with _blocked(_NEEDS_TORCH):
                    package = importlib.import_module("optuna_dashboard")
                application: Any = package.wsgi(storage)
                # Errors reach our handlers (an outage is a 503) instead of becoming Bottle's own page.
                application.catchall = False
                bridge = cast(ASGIApp, WSGIMiddleware(application))
                self._loaded = (bridge, storage)
            return self._loaded


def is_dashboard(path: str) -> bool:
    """Return whether a path belongs to the dashboard."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in PREFIXES)


def _refuse_contour(path: str, storage: BaseStorage) -> str | None:
    found = _CONTOUR.match(path)
    if found is None:
        return None
    try:
        trials = storage.get_all_trials(int(found[1]), deepcopy=False)
    except KeyError:
        return None
    parameters = len({name for trial in trials for name in trial.params})
    if len(trials) * parameters <= CONTOUR_LIMIT:
        return None
    return (
        f"A contour plot of {len(trials)} trials with {parameters} parameters is too large to draw"
        f" (trials x parameters is at most {CONTOUR_LIMIT}); use the slice or rank plot."
    )


def _with_encoding(scope: Scope) -> Scope:
    # It reads the header without asking whether there is one.
    if "accept-encoding" in Headers(scope=scope):
        return scope
    return {**scope, "headers": [*scope["headers"], (b"accept-encoding", b"identity")]}


def _guarded(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
        await send(message)

    return guarded


@contextmanager
def _blocked(module: str) -> Iterator[None]:
    """Make `import module` fail inside the block, as if it were not installed."""
    if module in sys.modules:
        yield
        return
    # None in sys.modules is the documented way to block an import; its type knows nothing of it.
    sys.modules[module] = None  # type: ignore[assignment]  # None is how an import is refused
    try:
        yield
    finally:
        sys.modules.pop(module, None)
