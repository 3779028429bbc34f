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
from functools import cache
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from a2wsgi import WSGIMiddleware
from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import csv_files

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from .sampling import Plot

log = logging.getLogger(__name__)

PREFIXES: Final = ("/dashboard", "/api", "/static", "/csv", "/artifacts", "/favicon.ico", "/incompatible-rdb-schema")
SAFE_METHODS: Final = ("GET", "HEAD")
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
# Its sampler for preferential optimization, which this service does not offer, is all that needs torch.
_NEEDS_TORCH = "optuna_dashboard.preferential.samplers.gp"


ROOT: Final = "/dashboard"
_FRONT: Final = re.compile(r"/api/studies/(\d+)/plot/pareto_front/?")
_PAGES: Final = re.compile(
    r"/dashboard(/studies/\d+(/(analytics|note|preference-history|smartSelection|trialTable|trials))?|/compare-studies)?/?"
)
"""The pages that its script draws; it leaves any other blank."""
_HEAD: Final = '<link rel="stylesheet" href="/assets/dashboard.css"><script defer src="/assets/dashboard.js"></script>'
_LINK: Final = '<a class="video-hpo" href="/" title="This dashboard shows, and changes nothing">\u2190 video-hpo</a>'


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
        if scope["path"] == ROOT or scope["path"].startswith(f"{ROOT}/"):
            await _page(scope["path"])(scope, receive, send)
            return
        application, storage = await to_thread.run_sync(self._load)
        if (refusal := await to_thread.run_sync(_no_front, scope["path"], storage)) is not None:
            await JSONResponse({"reason": refusal}, status_code=422)(scope, receive, send)
            return
        # Not before the first request: it is what needs Optuna.
        from .sampling import plot_of

        send = csv_files.with_harmless_cells(send) if scope["path"].startswith(csv_files.PREFIX) else send
        with plot_of(scope["path"]) as plot:
            reply = _guarded(send) if plot is None else _noted(_guarded(send), plot)
            await application(_with_encoding(scope), receive, reply)

    def _load(self) -> tuple[ASGIApp, BaseStorage]:
        with self._lock:
            if self._loaded is None:
                with _blocked(_NEEDS_TORCH):
                    package = importlib.import_module("optuna_dashboard")
                storage = self._make_storage()
                application: Any = package.wsgi(storage)
                # Errors reach our handlers (an outage is a 503) instead of becoming Bottle's own page.
                application.catchall = False
                self._loaded = (cast(ASGIApp, WSGIMiddleware(application)), storage)
            return self._loaded


def _no_front(path: str, storage: BaseStorage) -> str | None:
    """Return why a study has no plot of its front, if that is what is asked for; Optuna would fail on it."""
    found = _FRONT.fullmatch(path)
    try:
        count = 2 if found is None else len(storage.get_study_directions(int(found[1])))
    except KeyError:
        return None
    return None if count in (2, 3) else f"a front is drawn of 2 or 3 objectives; this study has {count}"


def _page(path: str) -> HTMLResponse:
    """Return the page that its script fills, with a way back to ours and without buttons that are refused."""
    if _PAGES.fullmatch(path) is None:
        raise HTTPException(404)
    return HTMLResponse(_index(), headers={"Content-Security-Policy": POLICY})


@cache
def _index() -> str:
    found = find_spec("optuna_dashboard")  # without loading it
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("optuna_dashboard is not installed")
    text = (Path(found.submodule_search_locations[0]) / "index.html").read_text(encoding="utf-8")
    return text.replace("</head>", f"{_HEAD}</head>").replace("</body>", f"{_LINK}</body>")


def is_dashboard(path: str) -> bool:
    """Return whether a path belongs to the dashboard."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in PREFIXES)


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


def _noted(send: Send, plot: Plot) -> Send:
    """Hold a plot back until it is whole, and let its title say what it shows."""
    from .sampling import with_note

    start: Message = {}
    parts: list[bytes] = []

    async def noted(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(parts)
        if start["status"] == HTTPStatus.OK:
            body = with_note(body, plot)
            MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return noted


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
