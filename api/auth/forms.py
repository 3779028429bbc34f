"""Forms of our pages: they come from this server, and carry what only a page made for that session has.

A browser sends the cookie of a session whoever made it ask. What changes something must therefore come from this
site (`Sec-Fetch-Site`, `Origin`) and carry the session's own `form_token`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from urllib.parse import parse_qs, urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Scope

from hpo.errors import PermissionDeniedError

from ..pages.frame import Viewer
from ..state import ApiState, State
from .cookies import session_of
from .scopes import Reader

FIELD: Final = "form_token"
MOST_FORM_BYTES: Final = 256 * 2**10
MOST_SPEC_FORM_BYTES: Final = 2**20
"""Of a form with a spec, of which the API takes 256 KiB: in a form, a character may take three times the space."""
MOST_TABLE_FORM_BYTES: Final = 6 * 2**20
"""Of a form with a table of results."""
MOST_FIELDS: Final = 1_000


def is_of_another_site(scope: Scope) -> bool:
    """Return whether a page of another site has made the browser ask."""
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    # Browsers name no site to an address without TLS beyond this machine, but an origin; `null` is that of a page which
    # hides its own. A program that is no browser names neither, and has no session that could be taken.
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host")
    except ValueError:  # no browser sends what is no address
        return True


def form_token(session: str, key: bytes) -> str:
    """Return what the forms of a session's pages carry."""
    return hmac.new(key, b"form of " + session.encode(), hashlib.sha256).hexdigest()


async def read_form(request: Request, *, most_bytes: int = MOST_FORM_BYTES) -> dict[str, str]:
    """Return the fields of a form, each with its first value.

    A NUL, which Postgres does not take, becomes a question mark.

    Raises:
        HTTPException: 413, the form is too long or has too many fields.
    """
    body, length = bytearray(), 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= most_bytes:
            body += chunk  # the rest is read and dropped: who is cut off while sending sees no answer
    if length > most_bytes:
        raise HTTPException(413, f"the form has {length:,} bytes, and at most {most_bytes:,} are read; nothing changed")
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(413, f"the form has more than {MOST_FIELDS:,} fields; nothing changed") from error
    return {name: values[0].replace("\0", "?") for name, values in fields.items()}


async def _form(request: Request) -> dict[str, str]:
    return await read_form(request)


Form = Annotated[dict[str, str], Depends(_form)]


def _guarded(most_bytes: int) -> Callable[[Request, ApiState], Awaitable[dict[str, str]]]:
    async def read(request: Request, state: State) -> dict[str, str]:
        form = await read_form(request, most_bytes=most_bytes)
        session = session_of(request.scope)
        if "authorization" in request.headers or session is None:
            return form  # a program with its token: no other page can make it send that
        expected = form_token(session, state.config.key)
        if not hmac.compare_digest(form.get(FIELD, "").encode(), expected.encode()):
            raise PermissionDeniedError("this form is of another session, or too old; load the page again")
        return form

    return read


GuardedForm = Annotated[dict[str, str], Depends(_guarded(MOST_FORM_BYTES))]
"""The fields of a form that came from a page of ours."""
GuardedSpecForm = Annotated[dict[str, str], Depends(_guarded(MOST_SPEC_FORM_BYTES))]
"""The same of one with a spec."""
GuardedTableForm = Annotated[dict[str, str], Depends(_guarded(MOST_TABLE_FORM_BYTES))]
"""The same of one with a table."""


async def _viewer(request: Request, state: State, reader: Reader) -> Viewer:
    session = session_of(request.scope)
    return Viewer(
        name=reader.name,
        may_steer=reader.token.allows("admin"),
        form_token="" if session is None else form_token(session, state.config.key),
        has_dashboard=state.config.dashboard,
    )


Looking = Annotated[Viewer, Depends(_viewer)]
"""Who looks at a page; the gate has let them through."""
