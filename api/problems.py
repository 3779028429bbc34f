"""Errors as problem details (RFC 9457): the only place that knows which error is which HTTP status.

Every error answer of the service has this form, also those of FastAPI itself. `type` is a path on this server that
explains the problem; `errors` names each wrong field of a spec or a body.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo import errors
from hpo.errors import HpoError, NotFoundError, SpecError

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5
INVALID: Final = "The request does not have the form that this route takes"
MOST_PROBLEMS: Final = 20
"""An answer names at most this many wrong fields; the others are counted."""
CHALLENGE: Final = 'Bearer realm="video-hpo"'

KINDS: Final[tuple[tuple[type[HpoError], str, int], ...]] = (
    (errors.GuessError, "invalid-guess", 422),
    (errors.SpecError, "invalid-spec", 422),
    (errors.ReportError, "impossible-report", 422),
    (errors.DataNotSeenError, "data-not-seen", 422),
    (errors.NotFoundError, "not-found", 404),
    (errors.StudyExistsError, "study-exists", 409),
    (errors.StaleLeaseError, "stale-lease", 409),
    (errors.ConflictError, "conflict", 409),
    (errors.AuthenticationError, "authentication", 401),
    (errors.PermissionDeniedError, "permission-denied", 403),
    (errors.StoreUnavailableError, "store-unavailable", 503),
    (errors.UnusableStudyError, "unusable-study", 500),
    (errors.SetupError, "setup", 500),
    (errors.HpoError, "failed", 500),
)
"""Class to the last part of the problem's type and the status; the first match wins."""

EXPLANATIONS: Final[Mapping[str, str]] = {
    **{slug: (kind.__doc__ or "").strip() for kind, slug, _ in KINDS},
    "invalid-request": "The body or a parameter of the request does not have the form that this route takes.",
    "internal": "Something failed inside the service; its log has the details under the id that the answer names.",
}


class FieldProblem(BaseModel):
    """One wrong field: its path (`space.lr.low`) and what would be right."""

    path: str
    message: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] | None = None


class ProblemResponse(JSONResponse):
    """An answer of the media type that RFC 9457 names."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """Write JSON; text from the request that is not valid Unicode becomes a question mark."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


_LONGEST: Final = 2000
"""Characters of a path or a message in an answer."""
router = APIRouter()


@router.get("/problems/{slug}", include_in_schema=False)
def explain_problem(slug: str) -> PlainTextResponse:
    """Explain a problem type in plain text."""
    if slug not in EXPLANATIONS:
        raise NotFoundError(f"there is no problem of type {slug!r}")
    return PlainTextResponse(EXPLANATIONS[slug] + "\n")


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem; `LastResort` is for what no handler foresaw."""
    app.add_exception_handler(HpoError, _on_hpo_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.include_router(router)


class LastResort:
    """ASGI middleware: what nobody foresaw becomes a problem with an id, and a traceback in the log under that id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens; one that has begun cannot be replaced, so its error is passed on to the server."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            if scope["type"] != "http" or begun:
                raise
            number, path = secrets.token_hex(6), scope["path"]
            log.exception("error %s in %s %s", number, scope["method"], path)
            detail = f"the service failed on this request; its log says more under error {number}"
            answer = _answer("internal", 500, title="Internal error", detail=detail, instance=path)
            await answer(scope, receive, send)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for the OpenAPI document; those that every route can give are added."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({401, 403, 421, 422, 503, *statuses})
    }


def of_error(error: HpoError, *, instance: str) -> ProblemResponse:
    """Turn an error of ours into an answer."""
    slug, status = next((slug, status) for kind, slug, status in KINDS if isinstance(error, kind))
    fields = None
    detail = str(error)
    if isinstance(error, SpecError):
        fields, detail = _first([FieldProblem(path=issue.path, message=issue.message) for issue in error.issues])
        what = "the request" if isinstance(error, errors.GuessError) else "the study spec"
        count = len(error.issues)
        detail = f"{what} has {count} problem{'s' if count != 1 else ''}: {detail}"
    title = (type(error).__doc__ or "").splitlines()[0].rstrip(".")
    return _answer(slug, status, title=title, detail=detail, instance=instance, fields=fields)


def of_status(status: int, detail: str, *, instance: str) -> ProblemResponse:
    """Describe a refusal that is no error of ours: its status says what it is."""
    return _answer("", status, title=HTTPStatus(status).phrase, detail=detail, instance=instance)


def _answer(
    slug: str,
    status: int,
    *,
    title: str,
    detail: str,
    instance: str,
    fields: Sequence[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    found = Problem(
        type=f"/problems/{slug}" if slug in EXPLANATIONS else "about:blank",
        title=title,
        status=status,
        detail=detail,
        instance=instance,
        errors=None if fields is None else list(fields),
    )
    extra = dict(headers or {})
    if status == 401:
        extra.setdefault("WWW-Authenticate", CHALLENGE)
    if status == 403:
        extra.setdefault("WWW-Authenticate", f'{CHALLENGE}, error="insufficient_scope"')
    if status == 503:
        extra.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return ProblemResponse(found.model_dump(exclude_none=True), status_code=status, headers=extra)


async def _on_hpo_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HpoError)  # noqa: S101 - registered for this class
    # Of a database that is away the store has said so, and every worker asks again and again.
    if not isinstance(
        error, errors.SpecError | errors.NotFoundError | errors.ConflictError | errors.StoreUnavailableError
    ):
        log.warning("%s %s: %s", request.method, request.url.path, error)
    return of_error(error, instance=request.url.path)


async def _on_invalid_request(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    fields, detail = _first([_field(found) for found in error.errors()])
    return _answer("invalid-request", 422, title=INVALID, detail=detail, instance=request.url.path, fields=fields)


async def _on_http_exception(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    path, status = request.url.path, error.status_code
    detail = str(error.detail)
    if status == 400:  # FastAPI's answer to a body that is no text at all; to one that is no JSON it answers 422
        fields = [FieldProblem(path="", message="the body is not JSON in UTF-8")]
        return _answer("invalid-request", 422, title=INVALID, detail=fields[0].message, instance=path, fields=fields)
    if status == 404:
        detail = f"there is nothing at {path}; the routes are listed at /docs"
    elif status == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{path} does not take {request.method}" + (f", only {allowed}" if allowed else "")
    return _answer("", status, title=HTTPStatus(status).phrase, detail=detail, instance=path, headers=error.headers)


def _first(fields: list[FieldProblem]) -> tuple[list[FieldProblem], str]:
    """Return the first of the problems, and one line that names them and the number of the others."""
    shown = [FieldProblem(path=_short(field.path), message=_short(field.message)) for field in fields[:MOST_PROBLEMS]]
    lines = [f"{field.path}: {field.message}" if field.path else field.message for field in shown]
    rest = len(fields) - len(shown)
    return shown, "; ".join([*lines, *([f"and {rest} more"] if rest else [])])


def _short(text: str) -> str:
    """Return a text without its middle if it is so long that it was not written by a person."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _field(found: Mapping[str, Any]) -> FieldProblem:
    location = list(found["loc"])
    if location and location[0] in ("body", "query", "path", "header", "cookie"):
        location = location[1:]
    if found["type"] == "json_invalid":
        return FieldProblem(path="", message=f"the body is not valid JSON: {found['ctx']['error']}")
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    message = str(found["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if found["type"] == "missing":
        message = "this field is required" if path else "a JSON body is required"
    if found["type"] == "extra_forbidden":
        message = "there is no such field here"
    return FieldProblem(path=path, message=message)
