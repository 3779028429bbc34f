"""The worker's calls to the API: one method per call, errors by what to do about them. No retries here."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from hpo.errors import AuthenticationError, PermissionDeniedError, StaleLeaseError
from hpo.protocol import ClaimRequest, FinishRequest, Lease, ReleaseRequest, ReportReply, ReportRequest
from hpo.trial import Decision

from ..errors import ApiRefusedError, ApiUnavailableError

TIMEOUT = httpx.Timeout(20.0, connect=5.0)
_DEFAULT_POLL_SECONDS = 2.0
_MOST_POLL_SECONDS = 60.0


_Reply = TypeVar("_Reply", bound=BaseModel)


class NoWork(BaseModel):
    """The API has no trial at the moment."""

    retry_after: float


class ApiClient:
    """Speaks to the API as a worker. Safe to use from several threads.

    Every call raises:
        ApiUnavailableError: nobody answers, or 5xx or 429: the same call again is right.
        AuthenticationError, PermissionDeniedError: the token.
        ApiRefusedError: the API understood and refused; the message is its own.

    Calls about a trial raise StaleLeaseError when it is somebody else's now, or gone.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def claim(self, request: ClaimRequest) -> Lease | NoWork:
        """Ask for a trial. After ApiUnavailableError ask again with the same lease id: the reply may have been lost."""
        response = self._post("/v1/leases", request)
        if response.status_code == httpx.codes.NO_CONTENT:
            wait = _retry_after(response)
            return NoWork(retry_after=_DEFAULT_POLL_SECONDS if wait is None else min(wait, _MOST_POLL_SECONDS))
        return self._parse(response, Lease)

    def report(self, trial_id: int, request: ReportRequest) -> Decision:
        """Send a heartbeat, with measurements or without; idempotent."""
        return self._parse(self._post(f"/v1/trials/{trial_id}/reports", request, trial=True), ReportReply).decision

    def finish(self, trial_id: int, request: FinishRequest) -> None:
        """Deliver the result; an identical repeat is accepted."""
        self._post(f"/v1/trials/{trial_id}/finish", request, trial=True)

    def release(self, trial_id: int, request: ReleaseRequest) -> None:
        """Give the trial back."""
        self._post(f"/v1/trials/{trial_id}/release", request, trial=True)

    def _post(self, path: str, body: BaseModel, *, trial: bool = False) -> httpx.Response:
        try:
            response = self._http.post(
                path, content=body.model_dump_json(), headers={"Content-Type": "application/json"}
            )
        except httpx.InvalidURL as error:
            raise ApiRefusedError(f"{self.url!r} is no address of an API ({error})") from error
        except httpx.UnsupportedProtocol as error:
            raise ApiRefusedError(f"{self.url!r} is no address of an API; write http://HOST:PORT") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ApiUnavailableError(f"the API at {self.url} cannot be reached ({reason})") from error
        self._raise_for(response, trial=trial)
        return response

    def _raise_for(self, response: httpx.Response, *, trial: bool) -> None:
        status = response.status_code
        if response.is_success:
            return
        if status >= 500 or status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT):
            raise ApiUnavailableError(
                f"the API at {self.url} answers {status} ({_detail(response)})", retry_after=_retry_after(response)
            )
        if status == httpx.codes.UNAUTHORIZED:
            raise AuthenticationError(f"the API at {self.url} does not know this token; give another with --token-file")
        if status == httpx.codes.FORBIDDEN:
            raise PermissionDeniedError(f"this token may not do a worker's work: {_detail(response)}")
        if trial and status in (httpx.codes.CONFLICT, httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise StaleLeaseError(_detail(response))
        raise ApiRefusedError(f"the API at {self.url} refused {response.request.url.path}: {_detail(response)}")

    def _parse(self, response: httpx.Response, kind: type[_Reply]) -> _Reply:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise ApiRefusedError(
                f"the API at {self.url} answered something that this version does not understand "
                f"({error.error_count()} problems with {kind.__name__}); install the same version on both sides"
            ) from error


class Backoff:
    """Growing waits with jitter, so that many workers do not come back at the same instant."""

    def __init__(self, *, first_seconds: float = 0.5, most_seconds: float = 15.0) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self.failures = 0

    def reset(self) -> None:
        """Begin again: a call went through."""
        self.failures = 0

    def next_seconds(self, asked: float | None = None) -> float:
        """Count a failure and give the wait, at least what the other side `asked` for (within reason)."""
        # 32 doublings are more than enough; an unbounded exponent overflows after a day without the API.
        limit = min(self._most, self._first * 2 ** min(self.failures, 32))
        self.failures += 1
        return max(jittered(limit), min(asked or 0.0, self._most))


def jittered(seconds: float) -> float:
    """Draw from the upper half of `seconds`."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def _retry_after(response: httpx.Response) -> float | None:
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(response.headers["Retry-After"]))
    return None


def _detail(response: httpx.Response) -> str:
    """Return the sentence of a problem document (RFC 9457), or the body's beginning."""
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        body: Any = response.json()
        if isinstance(body, dict) and (found := body.get("detail") or body.get("title")):
            return str(found)
    return response.text[:300] or response.reason_phrase
