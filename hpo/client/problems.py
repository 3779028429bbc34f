"""What an answer of the API other than 2xx means: one of the classes of `hpo.errors`.

The API describes its errors as problem details (RFC 9457). A proxy in front of it does not, so that the status decides
where a problem does not name its type.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx

from .. import errors
from ..errors import HpoError, SpecError, SpecIssue, StoreUnavailableError

MEDIA_TYPE: Final = "application/problem+json"
_BY_TYPE: Final[Mapping[str, Callable[[str], HpoError]]] = {
    "not-found": errors.NotFoundError,
    "study-exists": errors.StudyExistsError,
    "stale-lease": errors.StaleLeaseError,
    "conflict": errors.ConflictError,
    "authentication": errors.AuthenticationError,
    "permission-denied": errors.PermissionDeniedError,
    "store-unavailable": errors.StoreUnavailableError,
    "setup": errors.SetupError,
    "impossible-report": errors.ReportError,
    "unusable-study": errors.UnusableStudyError,
    "data-not-seen": errors.DataNotSeenError,
}
"""The last part of a problem's type, and the error that it stands for."""
_BY_STATUS: Final[Mapping[int, Callable[[str], HpoError]]] = {
    httpx.codes.UNAUTHORIZED: errors.AuthenticationError,
    httpx.codes.FORBIDDEN: errors.PermissionDeniedError,
    httpx.codes.NOT_FOUND: errors.NotFoundError,
    httpx.codes.CONFLICT: errors.ConflictError,
    httpx.codes.GONE: errors.NotFoundError,
    httpx.codes.BAD_GATEWAY: errors.StoreUnavailableError,
    httpx.codes.SERVICE_UNAVAILABLE: errors.StoreUnavailableError,
    httpx.codes.GATEWAY_TIMEOUT: errors.StoreUnavailableError,
}
_FIELD_PROBLEMS: Final = frozenset({"invalid-spec", "invalid-guess", "invalid-request"})
"""The types of problems that list the wrong fields."""
_EXCERPT_CHARACTERS: Final = 300


class UnreachableError(StoreUnavailableError):
    """Nothing answers at the address of the API.

    `reason` is what the network said.
    """

    def __init__(self, message: str | None = None, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def is_problem(response: httpx.Response) -> bool:
    """Return whether the body is a problem document, as every error of the API is."""
    return str(response.headers.get("content-type", "")).startswith(MEDIA_TYPE)


def is_temporary(response: httpx.Response) -> bool:
    """Return whether the same request may succeed later: 5xx, 408 and 429."""
    busy = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
    return response.is_server_error or response.status_code in busy


def retry_after_seconds(response: httpx.Response) -> float | None:
    """Return the wait that the header `Retry-After` asks for, at least 0; None without one in seconds."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(response.headers["Retry-After"]))
    return None


def detail_of(response: httpx.Response) -> str:
    """Return the sentence of a problem document, or the beginning of any other body."""
    problem = _document(response)
    return str(problem.get("detail") or problem.get("title") or response.text[:_EXCERPT_CHARACTERS]) or (
        response.reason_phrase
    )


def error_of(response: httpx.Response) -> HpoError:
    """Return the error that an answer other than 2xx stands for, with the sentence that came with it."""
    problem = _document(response)
    kind = str(problem.get("type", "")).rpartition("/")[2]
    if kind in _FIELD_PROBLEMS:
        fields = problem.get("errors") or [{"path": "", "message": detail_of(response)}]
        issues = [SpecIssue(path=field["path"], message=field["message"]) for field in fields]
        return errors.GuessError(issues) if kind == "invalid-guess" else SpecError(issues)
    make = _BY_TYPE.get(kind) or _BY_STATUS.get(response.status_code, HpoError)
    return make(detail_of(response))


def _document(response: httpx.Response) -> Mapping[str, Any]:
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        body = response.json()
        if isinstance(body, dict):
            return body
    return {}
