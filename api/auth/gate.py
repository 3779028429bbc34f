"""The gate before every route: nothing under /v1, no page and no dashboard is reached without a token or a session.

It stands before the body is read, so a stranger learns neither which studies exist nor how a body is judged. What is
open is listed here; everything new is closed until somebody adds it.

Before that, a request must call the server by a name of its own: a page of another site whose name was made to lead to
this machine (DNS rebinding) is refused, whatever its browser holds.
"""

from __future__ import annotations

from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo.errors import AuthenticationError, HpoError
from hpo.store import tokens
from hpo.store.tokens import TokenKind

from ..dashboard.mount import is_dashboard
from ..pages import workers as workers_page
from ..pages.login import login_page
from ..problems import of_error, of_status
from ..state import ApiState
from .scopes import Principal

OPEN: Final = frozenset({"/v1/health", "/v1/identity"})
MOST_BODY_BYTES: Final = 8 * 2**20
HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


class Gate:
    """ASGI middleware: puts the `principal` into the scope, or answers for itself."""

    def __init__(self, app: ASGIApp, *, state: ApiState) -> None:
        self._app = app
        self._state = state

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
                scope["principal"] = await to_thread.run_sync(self._identify, scope)
            except AuthenticationError as error:
                answer = login_page() if _wants_page(scope) else of_error(error, instance=path)
                await answer(scope, receive, send)
                return
            except HpoError as error:
                await of_error(error, instance=path)(scope, receive, send)
                return
        await self._app(scope, _limited(receive), send)

    def _identify(self, scope: Scope) -> Principal:
        headers = Headers(scope=scope)
        given = headers.get("authorization")
        if given is not None:
            kind, _, token = given.partition(" ")
            if kind.lower() != "bearer" or not token.strip():
                raise AuthenticationError("the Authorization header must read `Bearer TOKEN`")
            return self._verify(token.strip(), kind="api")
        # A cookie is sent by the browser, whoever made it ask: good for looking, never for changing.
        session = session_of(scope)
        if session is not None and scope["method"] in ("GET", "HEAD"):
            return self._verify(session, kind="session")
        raise AuthenticationError

    def _verify(self, token: str, *, kind: TokenKind) -> Principal:
        with self._state.database.transaction() as connection:
            return Principal(token=tokens.verify(connection, token, self._state.config.key, kind=kind))


def needs_principal(path: str) -> bool:
    """Return whether a path is closed to strangers."""
    is_ours = path == "/v1" or path.startswith("/v1/") or path == workers_page.PATH
    return path not in OPEN and (is_ours or is_dashboard(path))


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


def cookie_name(scope: Scope) -> str:
    """Return the name of the cookie that holds the session.

    A browser sends a host's cookies to all of its ports. With the port in the name, two services on one machine keep a
    session each.
    """
    try:
        port = urlsplit("//" + Headers(scope=scope).get("host", "")).port
    except ValueError:
        port = None
    return f"hpo_session_{port or (443 if scope['scheme'] == 'https' else 80)}"


def session_of(scope: Scope) -> str | None:
    """Return the session token of the request's cookie."""
    name = cookie_name(scope)
    try:
        cookie = SimpleCookie(Headers(scope=scope).get("cookie", ""))
    except CookieError:
        return None
    return cookie[name].value if name in cookie else None


def _wants_page(scope: Scope) -> bool:
    path: str = scope["path"]
    return path in ("/dashboard", workers_page.PATH) or path.startswith("/dashboard/")


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
            if not path.startswith("/static/"):
                headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return guarded
