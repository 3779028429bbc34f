"""The worker's calls to the API: one method per call, and an error class for what to do next. No retries here."""

from __future__ import annotations

from typing import Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from hpo.client.connection import Connection, UnreachableError
from hpo.client.problems import detail_of, error_of, is_temporary, retry_after_seconds
from hpo.errors import AuthenticationError, ConflictError, NotFoundError, PermissionDeniedError, StaleLeaseError
from hpo.protocol import ClaimRequest, FinishRequest, Lease, ReleaseRequest, ReportReply, ReportRequest
from hpo.trial import Decision

from ..errors import ApiRefusedError, ApiUnavailableError

TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
DEFAULT_POLL_SECONDS: Final = 2.0
"""The wait before the next claim where the API names none."""
LONGEST_POLL_SECONDS: Final = 60.0
"""A worker asks at least this often, whatever the API names."""
_Reply = TypeVar("_Reply", bound=BaseModel)


class NoWork(BaseModel):
    """The API has no trial at the moment."""

    retry_after: float
    """Seconds until it is worth asking again."""


class ApiClient:
    """Speaks to the API as a worker. Safe to use from several threads.

    Every call raises:
        ApiUnavailableError: nothing answers, or 5xx, 408 or 429: the same call may succeed later.
        AuthenticationError, PermissionDeniedError: the token is refused.
        ApiRefusedError: the API understood and refused; the message is its own.
        SetupError: the address cannot be that of an API.

    Calls about a trial also raise StaleLeaseError: another worker owns the trial now, or it does not exist any more.
    """

    def __init__(self, url: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        """Prepare the connection; nothing is sent yet. `transport` answers in place of the network.

        Raises:
            SetupError: `url` is not an address.
        """
        self._connection = Connection(url, token, timeout=TIMEOUT, trust_env=False, transport=transport)
        self.url = self._connection.url

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def claim(self, request: ClaimRequest) -> Lease | NoWork:
        """Claim a trial and return its lease, or `NoWork`.

        After ApiUnavailableError claim again with the same lease id: the reply may have been lost on its way.
        """
        response = self._post("/v1/leases", request)
        if response.status_code == httpx.codes.NO_CONTENT:
            asked = retry_after_seconds(response)
            return NoWork(retry_after=DEFAULT_POLL_SECONDS if asked is None else min(asked, LONGEST_POLL_SECONDS))
        return self._parse(response, Lease)

    def report(self, trial_id: int, request: ReportRequest) -> Decision:
        """Send a heartbeat, with or without measurements, and return the API's decision; a repeat changes nothing."""
        return self._parse(self._post(f"/v1/trials/{trial_id}/reports", request, trial=True), ReportReply).decision

    def finish(self, trial_id: int, request: FinishRequest) -> None:
        """Hand in the result; an identical repeat is accepted."""
        self._post(f"/v1/trials/{trial_id}/finish", request, trial=True)

    def release(self, trial_id: int, request: ReleaseRequest) -> None:
        """Give the trial back without a result."""
        self._post(f"/v1/trials/{trial_id}/release", request, trial=True)

    def _post(self, path: str, body: BaseModel, *, trial: bool = False) -> httpx.Response:
        try:
            response = self._connection.send(
                "POST", path, content=body.model_dump_json(), headers={"Content-Type": "application/json"}
            )
        except UnreachableError as error:
            raise ApiUnavailableError(f"the API at {self.url} cannot be reached ({error.reason})") from error
        self._raise_for(response, trial=trial)
        return response

    def _raise_for(self, response: httpx.Response, *, trial: bool) -> None:
        if response.is_success:
            return
        if is_temporary(response):
            raise ApiUnavailableError(
                f"the API at {self.url} answers {response.status_code} ({detail_of(response)})",
                retry_after=retry_after_seconds(response),
            )
        error = error_of(response)
        match error:
            case AuthenticationError():
                raise AuthenticationError(
                    f"the API at {self.url} does not know this token; give another with --token-file"
                )
            case PermissionDeniedError():
                raise PermissionDeniedError(f"this token may not do a worker's work: {error}")
            case ConflictError() | NotFoundError() if trial:
                raise StaleLeaseError(str(error))
            case _:
                raise ApiRefusedError(f"the API at {self.url} refused {response.request.url.path}: {error}")

    def _parse(self, response: httpx.Response, kind: type[_Reply]) -> _Reply:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise ApiRefusedError(
                f"the API at {self.url} answered something that this version does not understand "
                f"({error.error_count()} problems with {kind.__name__}); install the same version on both sides"
            ) from error
