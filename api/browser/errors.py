"""Errors as pages for people: what is a problem document for a program is a page for a browser."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..pages.frame import Viewer, page
from ..problems import MEDIA_TYPE


class ErrorPages:
    """ASGI middleware: a problem document that a browser would show as text becomes a page that says the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, but problems that go to a person."""
        if scope["type"] != "http" or "text/html" not in Headers(scope=scope).get("accept", ""):
            await self._app(scope, receive, send)
            return
        begun: Message | None = None
        body = bytearray()

        async def changed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and _is_problem(message):
                begun = message
            elif begun is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await _as_page(begun, bytes(body), scope, receive, send)

        await self._app(scope, receive, changed)


def _is_problem(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type", "").startswith(MEDIA_TYPE)


async def _as_page(begun: Message, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    # An answer to HEAD has no body.
    problem: dict[str, Any] = json.loads(body) if body else {}
    status = int(begun["status"])
    answer = page(
        "error.html",
        viewer=_viewer(scope),
        status=status,
        title="There is no such page" if status == 404 else problem.get("title", HTTPStatus(status).phrase),
        detail=problem.get("detail", ""),
        fields=problem.get("errors") or [],
    )
    headers = MutableHeaders(raw=list(begun["headers"]))
    for name in ("content-type", "content-length"):
        del headers[name]
    for name, value in headers.items():
        answer.headers[name] = value
    await answer(scope, receive, send)


def _viewer(scope: Scope) -> Viewer | None:
    principal = scope.get("principal")
    # The page has nothing to steer. Beyond our pages a session only reads, which would make its owner a reader here.
    return principal and Viewer(name=principal.name, may_steer=True, form_token="")
