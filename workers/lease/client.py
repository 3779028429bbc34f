"""The worker's calls to the API: one method per call, and an error class for what to do next. No retries here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self, TypeVar
from urllib.parse import unquote
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from hpo import traces
from hpo.client.connection import Connection
from hpo.client.problems import UnreachableError, detail_of, error_of, is_temporary, retry_after_seconds
from hpo.errors import (
    AuthenticationError,
    ConflictError,
    HpoError,
    NotFoundError,
    PermissionDeniedError,
    StaleLeaseError,
)
from hpo.protocol import (
    QUARANTINE_HEADER,
    STUDY_HEADER,
    ClaimRequest,
    FilesReply,
    FilesRequest,
    FinishRequest,
    Lease,
    LogRequest,
    Message,
    ReleaseRequest,
    RemovalsReply,
    RemovalsRequest,
    ReportReply,
    ReportRequest,
)
from hpo.trial import VIDEO

from ..errors import ApiRefusedError, ApiUnavailableError

TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
DEFAULT_POLL_SECONDS: Final = 2.0
"""The wait before the next claim where the API names none."""
LONGEST_POLL_SECONDS: Final = 60.0
"""A worker asks at least this often, whatever the API names."""
_GONE: Final[tuple[type[HpoError], ...]] = (ConflictError, NotFoundError)
"""Answers about a trial that another worker owns, that is over, or that was deleted."""
_Reply = TypeVar("_Reply", bound=BaseModel)
_log = logging.getLogger(__name__)


class NoWork(BaseModel):
    """The API has no trial at the moment."""

    retry_after: float
    """Seconds until it is worth asking again."""
    quarantine: str | None = None
    """Why the API gives this worker no trial at all, for a person to read."""


class ApiClient:
    """Speaks to the API as a worker. Safe to use from several threads.

    Every call raises:
        ApiUnavailableError: nothing answers, or 5xx, 408 or 429: the same call may succeed later.
        AuthenticationError, PermissionDeniedError: the token is refused.
        ApiRefusedError: the API understood and refused; the message is its own.
        SetupError: the address cannot be that of an API.

    Calls about a trial also raise StaleLeaseError: another worker owns the trial now, or it does not exist any more.
    """

    part_of: str | None = None
    """The span that calls are a part of, where the API traces trials."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        server_file: Path | None = None,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet. The arguments are those of `Connection`.

        Raises:
            SetupError: `url` is not an address.
        """
        self._connection = Connection(
            url,
            token,
            timeout=TIMEOUT,
            trust_env=False,
            server_file=server_file,
            ca_file=ca_file,
            transport=transport,
        )
        self.url = self._connection.url
        self._knows_start_ids = True
        self._takes_progress = True
        """Whether the API knows of the progress of trials, as far as is known."""

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def claim(self, request: ClaimRequest, *, wait_seconds: float = 0.0) -> Lease | NoWork:
        """Claim a trial and return its lease, or `NoWork`, after at most `wait_seconds` in which there was none.

        An API of an earlier release does not wait, and says when to ask again.

        After ApiUnavailableError claim again with the same lease id: the reply may have been lost on its way.

        Raises:
            StaleLeaseError: this lease id was good for a claim, and its lease is over; claim with a new one.
        """
        response = self._post_claim(request, {"Prefer": f"wait={wait_seconds:.0f}"} if wait_seconds >= 1 else {})
        if response.status_code == httpx.codes.NO_CONTENT:
            asked = retry_after_seconds(response)
            reason = response.headers.get(QUARANTINE_HEADER)
            return NoWork(
                retry_after=DEFAULT_POLL_SECONDS if asked is None else min(asked, LONGEST_POLL_SECONDS),
                quarantine=None if reason is None else unquote(reason),
            )
        lease = self._parse(response, Lease)
        # A worker has one lease at a time: what it says from now on is a part of this one's trace.
        self.part_of = response.headers.get(traces.HEADER)
        study = response.headers.get(STUDY_HEADER)
        return lease if study is None else lease.model_copy(update={"study_uuid": _uuid(study)})

    def _post_claim(self, request: ClaimRequest, headers: Mapping[str, str]) -> httpx.Response:
        """Send a claim; without what an API of an earlier release does not know, where it refuses that."""
        if self._knows_start_ids:
            try:
                return self._post("/v1/leases", request, stale=(StaleLeaseError,), headers=headers)
            except ApiRefusedError:
                if request.worker.start_id is None:
                    raise
        # Releases up to 0.2.0 have trials of one device alone.
        worker = request.worker.model_copy(update={"start_id": None, "gpus": 1})
        trains = VIDEO in request.task_kinds
        kinds = [VIDEO] if trains else request.task_kinds  # and of videos
        without = request.model_copy(update={"worker": worker, "task_kinds": kinds})
        try:
            response = self._post("/v1/leases", without, stale=(StaleLeaseError,), headers=headers)
        except ApiRefusedError as error:
            if trains:
                raise
            raise ApiRefusedError(f"{error}; releases up to 0.2.0 have no trials for a worker with --entry") from error
        self._knows_start_ids = False
        return response

    def report(self, trial_id: int, request: ReportRequest) -> ReportReply:
        """Send a heartbeat, with or without measurements, and return the API's reply; a repeat changes nothing."""
        return self._parse(self._post_report(f"/v1/trials/{trial_id}/reports", request), ReportReply)

    def _post_report(self, path: str, request: ReportRequest) -> httpx.Response:
        """Send a report; an API of an earlier release, which refuses what is only to be shown, gets it without."""
        refusal: ApiRefusedError | None = None
        earlier = request.model_copy(update={"progress": None, "dataset_version": None, "confusion": None})
        if request != earlier and self._takes_progress:
            try:
                return self._post(path, request, stale=_GONE)
            except ApiRefusedError as error:
                refusal = error
        response = self._post(path, earlier, stale=_GONE)
        if refusal is not None:
            self._takes_progress = False
            _log.info("the API does not show the progress of trials: %s", refusal)
        return response

    def finish(self, trial_id: int, request: FinishRequest) -> None:
        """Hand in the result; an identical repeat is accepted."""
        path = f"/v1/trials/{trial_id}/finish"
        if request.confusion is not None and self._takes_progress:
            try:
                self._post(path, request, stale=_GONE)
            except ApiRefusedError as error:
                _log.info("the API does not show confusion matrices: %s", error)  # it is of an earlier release
            else:
                return
        self._post(path, request.model_copy(update={"confusion": None}), stale=_GONE)

    def release(self, trial_id: int, request: ReleaseRequest) -> None:
        """Give the trial back without a result."""
        path = f"/v1/trials/{trial_id}/release"
        if request.fault is not None:
            try:
                self._post(path, request, stale=_GONE)
            except ApiRefusedError:
                _log.info("the API does not know of the fault %s", request.fault)  # it is of an earlier release
            else:
                return
        self._post(path, request.model_copy(update={"fault": None}), stale=_GONE)

    def append_log(self, trial_id: int, request: LogRequest) -> None:
        """Send a part of the attempt's log.

        An API of an earlier release does not know the call and refuses it, as it does a trial that is not this
        worker's any more: ApiRefusedError.
        """
        self._post(f"/v1/trials/{trial_id}/log", request)

    def plan_files(self, request: FilesRequest) -> FilesReply:
        """Return what stays of the checkpoint files of a study. An API of an earlier release refuses the call."""
        return self._parse(self._post("/v1/checkpoints/plan", request), FilesReply)

    def give_up_files(self, request: RemovalsRequest) -> list[int]:
        """Return those of the trials whose weights may go now; a repeat changes nothing."""
        return self._parse(self._post("/v1/checkpoints/removals", request), RemovalsReply).trials

    def _post(
        self,
        path: str,
        body: Message,
        *,
        stale: tuple[type[HpoError], ...] = (),
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> httpx.Response:
        """Send a message; an answer that is one of `stale` says that its lease is not this worker's any more."""
        traced = {} if self.part_of is None else {traces.HEADER: self.part_of}
        try:
            response = self._connection.send(
                "POST", path, content=body.to_json(), headers={"Content-Type": "application/json", **traced, **headers}
            )
        except UnreachableError as error:
            self._knows_start_ids = self._takes_progress = True  # it may come back as a later release
            raise ApiUnavailableError(f"the API at {self.url} cannot be reached ({error.reason})") from error
        self._raise_for(response, stale=stale)
        return response

    def _raise_for(self, response: httpx.Response, *, stale: tuple[type[HpoError], ...]) -> None:
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
            case _ if isinstance(error, stale):
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


def _uuid(text: str) -> UUID | None:
    """Return the UUID that a header holds; None where it is none, as behind a proxy that adds headers of its own."""
    try:
        return UUID(text)
    except ValueError:
        return None
