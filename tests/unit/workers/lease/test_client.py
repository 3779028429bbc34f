"""The real client of a worker over a transport that answers in place of the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hpo.errors import AuthenticationError, HpoError, PermissionDeniedError, SetupError, StaleLeaseError
from hpo.protocol import ClaimRequest, FinishRequest, Lease, ReleaseRequest, ReportRequest, WorkerInfo
from hpo.trial import Decision
from workers.errors import ApiRefusedError, ApiUnavailableError
from workers.lease.client import ApiClient, NoWork

from .fakes import LEASE_ID, make_lease, measurement

CLAIM = ClaimRequest(worker=WorkerInfo(name="w", host="h", pid=1, device="cpu"), lease_id=LEASE_ID, study="demo")
REPORT = ReportRequest(attempt=1, lease_id=LEASE_ID, measurements=[measurement(1)], checkpoint="/c/e1.pt")
FINISH = FinishRequest(attempt=1, lease_id=LEASE_ID, outcome="completed", metrics={"val_top1": 0.4})
RELEASE = ReleaseRequest(attempt=1, lease_id=LEASE_ID, reason="drained")


class Api:
    """Answers every request with the same response, and keeps the requests."""

    def __init__(self, response: httpx.Response | Exception) -> None:
        self._response = response
        self.requests: list[httpx.Request] = []
        self.client = ApiClient("http://api/", "hpo_t", transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self._response, Exception):
            raise self._response
        return self._response


Call = Callable[[ApiClient], Any]
CLAIMING: Call = lambda client: client.claim(CLAIM)  # noqa: E731 - one of four of a kind
REPORTING: Call = lambda client: client.report(9, REPORT)  # noqa: E731 - three calls side by side
FINISHING: Call = lambda client: client.finish(9, FINISH)  # noqa: E731 - three calls side by side
RELEASING: Call = lambda client: client.release(9, RELEASE)  # noqa: E731 - three calls side by side
ABOUT_A_TRIAL = [REPORTING, FINISHING, RELEASING]
ALL = [CLAIMING, *ABOUT_A_TRIAL]


def _problem(slug: str, status: int, detail: str = "the detail") -> httpx.Response:
    return httpx.Response(
        status,
        json={"type": f"/problems/{slug}", "title": "Title", "status": status, "detail": detail},
        headers={"content-type": "application/problem+json"},
    )


def _error(response: httpx.Response | Exception, call: Call) -> HpoError:
    with pytest.raises(HpoError) as caught:
        call(Api(response).client)
    return caught.value


@pytest.mark.parametrize(
    ("call", "path", "body", "response"),
    [
        (CLAIMING, "/v1/leases", CLAIM, httpx.Response(204)),
        (REPORTING, "/v1/trials/9/reports", REPORT, httpx.Response(200, json={"decision": "continue"})),
        (FINISHING, "/v1/trials/9/finish", FINISH, httpx.Response(200, json={})),
        (RELEASING, "/v1/trials/9/release", RELEASE, httpx.Response(200, json={})),
    ],
)
def test_each_call_posts_its_message_with_the_token(
    call: Call, path: str, body: ClaimRequest | ReportRequest, response: httpx.Response
) -> None:
    api = Api(response)
    call(api.client)
    [request] = api.requests
    assert (request.method, request.url.path) == ("POST", path)
    assert request.headers["Authorization"] == "Bearer hpo_t"
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content) == body.model_dump(mode="json")


def test_a_claim_returns_the_lease() -> None:
    lease = make_lease(attempt=2, checkpoint="/c/a.pt", epochs_done=2)
    reply = Api(httpx.Response(200, content=lease.model_dump_json())).client.claim(CLAIM)
    assert isinstance(reply, Lease)
    assert reply == lease


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("3600", 60.0), ("soon", 2.0), (None, 2.0), ("-1", 0.0)]
)
def test_without_work_the_wait_is_the_one_that_the_api_names_up_to_a_minute(header: str | None, seconds: float) -> None:
    headers = {} if header is None else {"Retry-After": header}
    assert Api(httpx.Response(204, headers=headers)).client.claim(CLAIM) == NoWork(retry_after=seconds)


@pytest.mark.parametrize("decision", list(Decision))
def test_a_report_returns_the_decision(decision: Decision) -> None:
    assert Api(httpx.Response(200, json={"decision": decision})).client.report(9, REPORT) is decision


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_in_trouble_is_unavailable_and_may_name_a_wait(call: Call, status: int) -> None:
    waiting = httpx.Response(status, text="busy", headers={"Retry-After": "7"})
    error = _error(waiting, call)
    assert isinstance(error, ApiUnavailableError)
    assert error.retry_after == 7.0
    assert str(error) == f"the API at http://api answers {status} (busy)"
    plain = _error(_problem("store-unavailable", status), call)
    assert isinstance(plain, ApiUnavailableError)
    assert plain.retry_after is None
    assert "(the detail)" in str(plain)


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (httpx.ConnectError("Connection refused"), "Connection refused"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
        (httpx.RemoteProtocolError("Server disconnected"), "Server disconnected"),
    ],
)
def test_a_network_that_fails_is_unavailable(call: Call, failure: Exception, reason: str) -> None:
    error = _error(failure, call)
    assert isinstance(error, ApiUnavailableError)
    assert str(error) == f"the API at http://api cannot be reached ({reason})"


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize("response", [httpx.Response(401), _problem("authentication", 401)])
def test_an_unknown_token_is_reported_with_what_to_do(call: Call, response: httpx.Response) -> None:
    error = _error(response, call)
    assert isinstance(error, AuthenticationError)
    assert str(error) == "the API at http://api does not know this token; give another with --token-file"


@pytest.mark.parametrize("call", ALL)
def test_a_token_without_the_scope_is_reported(call: Call) -> None:
    error = _error(_problem("permission-denied", 403, "the scope 'worker' is needed"), call)
    assert isinstance(error, PermissionDeniedError)
    assert str(error) == "this token may not do a worker's work: the scope 'worker' is needed"


GONE = [
    _problem("stale-lease", 409),
    _problem("conflict", 409),
    _problem("not-found", 404),
    httpx.Response(404, text="the detail"),
    httpx.Response(410, text="the detail"),
]


@pytest.mark.parametrize("call", ABOUT_A_TRIAL)
@pytest.mark.parametrize("response", GONE)
def test_a_trial_that_is_not_this_workers_any_more_is_a_stale_lease(call: Call, response: httpx.Response) -> None:
    error = _error(response, call)
    assert isinstance(error, StaleLeaseError)
    assert str(error) == "the detail"


@pytest.mark.parametrize("response", GONE)
def test_a_claim_that_is_refused_has_no_lease_to_lose(response: httpx.Response) -> None:
    error = _error(response, CLAIMING)
    assert isinstance(error, ApiRefusedError)
    assert str(error) == "the API at http://api refused /v1/leases: the detail"


@pytest.mark.parametrize("call", ALL)
def test_a_request_that_the_api_does_not_understand_is_refused_with_its_sentence(call: Call) -> None:
    error = _error(_problem("invalid-request", 422, "lease_id: not a UUID"), call)
    assert isinstance(error, ApiRefusedError)
    assert "lease_id: not a UUID" in str(error)


@pytest.mark.parametrize("call", [CLAIMING, REPORTING])
@pytest.mark.parametrize("content", [b"<html>", b'{"decision": "explode"}', b"{}"])
def test_an_answer_of_another_version_is_refused_with_what_to_do(call: Call, content: bytes) -> None:
    error = _error(httpx.Response(200, content=content), call)
    assert isinstance(error, ApiRefusedError)
    assert "install the same version on both sides" in str(error)


def test_an_address_that_is_not_one_is_a_mistake_of_set_up() -> None:
    with ApiClient("ftp://x", "hpo_t") as client, pytest.raises(SetupError, match="'ftp://x' is not the address"):
        client.claim(CLAIM)
    with pytest.raises(SetupError, match="is not the address of an API"):
        ApiClient("http://host:port", "hpo_t")
