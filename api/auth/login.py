"""Logging a browser in: by a link that works once, or by typing a token. The cookie is a session row in the store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from hpo.errors import AuthenticationError
from hpo.store import tokens
from hpo.store.tokens import TokenRow

from ..pages import paths
from ..pages.login import login_page
from ..problems import responses
from ..state import ApiState, State
from .cookies import cookie_name, session_of
from .forms import Form, is_of_another_site
from .scopes import BEARER, Admin
from .secret import new_login_code

router = APIRouter()


class LoginLink(BaseModel):
    """A path on this server that logs a browser in, once."""

    path: str
    expires_in_seconds: float


@router.post(
    "/v1/login-links",
    status_code=201,
    tags=["tokens"],
    dependencies=[Depends(BEARER)],
    responses=responses(),
    operation_id="create_login_link",
)
def create_link(state: State, admin: Admin) -> LoginLink:
    """Make a link that logs a browser in once, as the holder of your token, as long as that is valid."""
    seconds = state.config.login_code_seconds
    with state.database.transaction() as connection:
        code = new_login_code(connection, state.config.key, owner=admin.token, seconds=seconds)
    return LoginLink(path=f"/login?code={code}", expires_in_seconds=seconds)


@router.get("/login", include_in_schema=False)
def log_in_by_link(request: Request, state: State, code: str | None = None) -> Response:
    """Turn a one-time code into a session; without one, ask for a token."""
    if code is None:
        return login_page(status=200)
    try:
        with state.database.transaction() as connection:
            link = tokens.redeem(connection, code, state.config.key)
            session = _new_session(connection, state, link, owner=link.parent_id)
    except AuthenticationError:
        error = "This link was used already or is too old. Log in with the token, or with a new link of `hpo login`."
        return _refused(request, state, error)
    return _welcome(request, state, session)


@router.post("/login", include_in_schema=False)
def log_in_by_token(request: Request, state: State, form: Form) -> Response:
    """Turn a token, typed into the form, into a session."""
    if is_of_another_site(request.scope):
        return login_page(status=403, error="Another site sent this. Log in here.")
    try:
        with state.database.transaction() as connection:
            row = tokens.verify(connection, form.get("token", "").strip(), state.config.key, kind="api")
            session = _new_session(connection, state, row, owner=row.id)
    except AuthenticationError:
        return _refused(request, state, "That token is not known, or has expired.")
    return _welcome(request, state, session)


@router.post("/logout", include_in_schema=False)
def log_out(request: Request, state: State) -> Response:
    """End the session of this browser."""
    if is_of_another_site(request.scope):
        return login_page(status=403, error="Another site sent this. Log out here.")
    session = session_of(request.scope)
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(cookie_name(request.scope))
    if session is not None:
        try:
            with state.database.transaction() as connection:
                row = tokens.verify(connection, session, state.config.key, kind="session")
                tokens.revoke(connection, row.id)
        except AuthenticationError:
            return answer
    return answer


def _new_session(connection: Connection, state: ApiState, of: TokenRow, *, owner: int | None) -> str:
    # It may on our pages what its token may; the gate lets it only read everywhere else.
    return tokens.create(
        connection,
        name=of.name,
        scopes=of.scopes,
        key=state.config.key,
        kind="session",
        expires=timedelta(seconds=state.config.session_seconds),
        parent=owner,
    )


def _welcome(request: Request, state: ApiState, session: str) -> Response:
    answer = RedirectResponse(paths.HOME, status_code=303)
    settings: dict[str, Any] = {"httponly": True, "samesite": "strict", "secure": request.url.scheme == "https"}
    settings |= {"max_age": int(state.config.session_seconds), "path": "/"}
    answer.set_cookie(cookie_name(request.scope), session, **settings)
    return answer


def _refused(request: Request, state: ApiState, error: str) -> Response:
    """Answer a wrong code or token. Only these are counted: whoever sends them cannot keep a right one from working."""
    client = request.client.host if request.client else ""
    wait = state.logins.wait_seconds(client)
    if wait <= 0:
        return login_page(error=error)
    retry = {"Retry-After": str(int(wait) + 1)}
    return login_page(status=429, error="Too many attempts; wait a minute and try again.", headers=retry)
