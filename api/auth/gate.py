"""The gate before every route: none is reached without a token or a session, but for the few that are named here.

It stands before the body is read, so a stranger learns neither which studies exist nor how a body is judged. What is
open is listed here; everything new is closed until somebody adds it.

Before that, a request must call the server by a name of its own: a page of another site whose name was made to lead to
this machine (DNS rebinding) is refused, whatever its browser holds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo.errors import AuthenticationError, HpoError, StoreUnavailableError
from hpo.store import Database, tokens
from hpo.store.tokens import TokenKind

from ..dashboard.mount import is_dashboard
from ..pages import paths
from ..pages.login import login_page
from ..problems import of_error, of_status
from ..state import ApiState
from .cookies import session_of
from .forms import is_of_another_site
from .known import KnownTokens, is_checked_later
from .scopes import Principal

OPEN: Final = frozenset(
    {"/v1/health", "/v1/health/live", "/v1/identity", "/login", "/logout", "/docs", "/openapi.json"}
)
SAYS_MORE_TO_READERS: Final = frozenset({"/v1/health"})
"""Open, but who shows a valid token or session is told more."""
OPEN_BELOW: Final = ("/assets/", "/problems/")
"""Scripts and styles, and the explanations of errors: they say nothing about this service."""
MOST_BODY_BYTES: Final = 8 * 2**20
HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),  # without any, the browser would not say whose form it sends
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


class Gate:
    """ASGI middleware: puts the `principal` into the scope, or answers for itself."""

    def __init__(self, app: ASGIApp, *, state: ApiState) -> None:
        self._app = app
        self._state = state
        self._known = KnownTokens()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, send = scope["path"], _with_headers(scope["path"], send)
        host = Headers(scope=scope).get("host")
        if host is not None and not is_own(host, self._state.config.names):
            detail = f"this service is not called {host!r}; if it should be, start it with --allowed-host"
            await of_status(421, detail, instance=path)(scope, receive, send)
            return
        if needs_principal(path):
            try:
                scope["principal"] = self._remembered(scope) or await self._found_out(scope)
            except AuthenticationError as error:
                answer = login_page() if _wants_page(scope) else of_error(error, instance=path)
                await answer(scope, receive, send)
                return
            except HpoError as error:
                await of_error(error, instance=path)(scope, receive, send)
                return
        elif path in SAYS_MORE_TO_READERS:
            try:
                scope["principal"] = await self._found_out(scope)
            except StoreUnavailableError:
                scope["store_is_away"] = True  # the route need not wait for it once more
            except HpoError:
                pass  # a stranger
        await self._app(scope, _limited(receive), send)

    def _remembered(self, scope: Scope) -> Principal | None:
        """Return who makes a call whose statement checks the token, if the token is known."""
        given = Headers(scope=scope).get("authorization")
        if given is None or not is_checked_later(scope["method"], scope["path"]):
            return None
        row = self._known.get(given)
        return None if row is None else Principal(token=row)

    async def _found_out(self, scope: Scope) -> Principal:
        """Return who makes a request, as the database says now: on the way that its route takes to it."""
        if is_checked_later(scope["method"], scope["path"]):
            return await self._state.lane.run(partial(self._identify, scope))
        return await to_thread.run_sync(self._identify, scope, self._state.database)

    def _identify(self, scope: Scope, database: Database) -> Principal:
        headers = Headers(scope=scope)
        given = headers.get("authorization")
        if given is not None:
            kind, _, token = given.partition(" ")
            if kind.lower() != "bearer" or not token.strip():
                raise AuthenticationError("the Authorization header must read `Bearer TOKEN`")
            principal = self._verify(database, token.strip(), kind="api")
            self._known.add(given, principal.token)
            return principal
        session = session_of(scope)
        if session is None:
            raise AuthenticationError
        return self._of_session(scope, database, session)

    def _of_session(self, scope: Scope, database: Database, session: str) -> Principal:
        """Return who a cookie stands for: on our pages its token's holder, everywhere else a reader."""
        path, is_reading = scope["path"], scope["method"] in ("GET", "HEAD")
        if paths.is_page(path):
            # The form's own token is checked where its body is read (`forms.py`).
            if not is_reading and is_of_another_site(scope):
                raise AuthenticationError("another site sent this")
            return self._verify(database, session, kind="session")
        # A cookie is sent by the browser, whoever made it ask: good for looking, never for changing. The dashboard
        # changes nothing, and says so itself.
        if not is_reading and not is_dashboard(path):
            raise AuthenticationError
        found = self._verify(database, session, kind="session")
        return replace(found, token=replace(found.token, scopes=frozenset({"read"})))

    def _verify(self, database: Database, token: str, *, kind: TokenKind) -> Principal:
        with database.transaction() as connection:
            return Principal(token=tokens.verify(connection, token, self._state.config.key, kind=kind))


def needs_principal(path: str) -> bool:
    """Return whether a path is closed to strangers."""
    return path not in OPEN and not path.startswith(OPEN_BELOW)


def is_own(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header names this server: an IP address, `localhost`, or one of `names`."""
    try:
        name = (urlsplit("//" + host).hostname or "").removesuffix(".")
        if name == "localhost" or name in names:
            return True
        ip_address(name)
    except ValueError:
        return False
    return True


def _wants_page(scope: Scope) -> bool:
    path: str = scope["path"]
    is_seen = paths.is_page(path) or path == "/dashboard" or path.startswith("/dashboard/")
    wants_events = "text/event-stream" in Headers(scope=scope).get("accept", "")
    return is_seen and scope["method"] in ("GET", "HEAD") and not wants_events


def _limited(receive: Receive) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MOST_BODY_BYTES} bytes")
        return message

    return limited


def _with_headers(path: str, send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS:
                headers[name] = value
            if not path.startswith("/static/"):  # scripts and styles of the dashboard
                headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return guarded
