"""The real client of a worker over a transport that answers in place of the API."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest

from hpo.errors import AuthenticationError, HpoError, PermissionDeniedError, SetupError, StaleLeaseError
from hpo.protocol import (
    STUDY_HEADER,
    ClaimRequest,
    FinishRequest,
    Lease,
    LogRequest,
    Progress,
    ReleaseRequest,
    ReportRequest,
    WorkerInfo,
)
from hpo.trial import Decision, Fault
from workers.errors import ApiRefusedError, ApiUnavailableError
from workers.lease.client import ApiClient, NoWork

from .fakes import LEASE_ID, confusion, loaded_weights, make_lease, measurement

CLAIM = ClaimRequest(worker=WorkerInfo(name="w", host="h", pid=1, device="cpu"), lease_id=LEASE_ID, study="demo")
REPORT = ReportRequest(attempt=1, lease_id=LEASE_ID, measurements=[measurement(1)], checkpoint="/c/e1.pt")
FINISH = FinishRequest(attempt=1, lease_id=LEASE_ID, outcome="completed", metrics={"val_top1": 0.4})
RELEASE = ReleaseRequest(attempt=1, lease_id=LEASE_ID, reason="drained")


class Api:
    """Answers requests with these responses, the last one again and again, and keeps the requests."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self._responses = list(responses)
        self.requests: list[httpx.Request] = []
        self.client = ApiClient("http://api/", "hpo_t", transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        response = self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]
        if isinstance(response, Exception):
            raise response
        return response


Call = Callable[[ApiClient], Any]
CLAIMING: Call = lambda client: client.claim(CLAIM)  # noqa: E731 - one of four of a kind
REPORTING: Call = lambda client: client.report(9, REPORT)  # noqa: E731 - three calls side by side
FINISHING: Call = lambda client: client.finish(9, FINISH)  # noqa: E731 - three calls side by side
FAULTY = ReleaseRequest(attempt=1, lease_id=LEASE_ID, reason="crashed", fault=Fault.STORAGE, message="full")
GIVING_BACK: Call = lambda client: client.release(9, FAULTY)  # noqa: E731 - as the other calls
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
        (GIVING_BACK, "/v1/trials/9/release", FAULTY, httpx.Response(200, json={})),
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
    # An API of an earlier release refuses a field that it does not know.
    later = ("fault", "weights", "progress", "confusion") + (
        ("dataset_version",) if isinstance(body, ReportRequest) else ()
    )
    unused = {name: True for name in later if not getattr(body, name, None)}
    unsaid: dict[str, Any] = (
        {"worker": {"start_id", "gpus", "nodes"}, "task_kinds": True} if isinstance(body, ClaimRequest) else {}
    )
    assert json.loads(request.content) == body.model_dump(mode="json", exclude={**unused, **unsaid})


def test_an_api_that_knows_no_faults_gets_the_trial_back_without(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    refused = _problem("invalid-spec", 422, "fault: extra inputs are not permitted")
    api = Api(refused, httpx.Response(204))
    api.client.release(9, FAULTY)
    first, second = (json.loads(request.content) for request in api.requests)
    assert first["fault"] == "storage"
    assert second == {name: value for name, value in first.items() if name != "fault"}
    with pytest.raises(ApiRefusedError):
        Api(refused, refused).client.release(9, FAULTY)


def test_an_api_that_knows_no_start_ids_is_asked_without() -> None:
    request = CLAIM.model_copy(update={"worker": CLAIM.worker.model_copy(update={"start_id": "a7"})})
    refused = _problem("invalid-spec", 422, "worker.start_id: extra inputs are not permitted")
    api = Api(refused, httpx.Response(204))
    for _ in range(2):
        assert isinstance(api.client.claim(request), NoWork)
    first, *others = (json.loads(sent.content) for sent in api.requests)
    assert first["worker"].pop("start_id") == "a7"
    assert others == [first, first], "it is left out at once the second time"
    with pytest.raises(ApiRefusedError):
        Api(refused, refused).client.claim(request)


def test_an_api_of_an_earlier_release_is_asked_for_videos_and_one_gpu_alone() -> None:
    worker = CLAIM.worker.model_copy(update={"start_id": "a7", "gpus": 2})
    request = CLAIM.model_copy(update={"worker": worker, "task_kinds": ["video", "image"]})
    refused = _problem("invalid-spec", 422, "task_kinds: extra inputs are not permitted")
    api = Api(refused, httpx.Response(204), httpx.ConnectError("upgrading"), httpx.Response(204))
    assert isinstance(api.client.claim(request), NoWork)
    with pytest.raises(ApiUnavailableError):
        api.client.claim(request)
    assert isinstance(api.client.claim(request), NoWork)
    first, second, _, again = (json.loads(sent.content) for sent in api.requests)
    assert again == first, "it may have come back as a later release"
    assert (first.pop("task_kinds"), first["worker"].pop("start_id"), first["worker"].pop("gpus")) == (
        ["video", "image"],
        "a7",
        2,
    )
    assert second == first


def test_a_quarantine_is_an_answer_without_a_trial_that_says_why() -> None:
    reason = "the disk is full (Übung, 100 %)"
    headers = {"Retry-After": "30", "Worker-Quarantine": quote(reason)}
    assert CLAIMING(Api(httpx.Response(204, headers=headers)).client) == NoWork(retry_after=30, quarantine=reason)


def test_what_a_trial_starts_from_is_sent_where_there_is_something() -> None:
    api = Api(httpx.Response(200, json={"decision": "continue"}))
    weighted = REPORT.model_copy(update={"weights": [loaded_weights()]})
    api.client.report(9, weighted)
    sent = weighted.model_dump(mode="json", exclude={"progress", "dataset_version", "confusion"})
    assert json.loads(api.requests[0].content) == sent


def test_an_api_that_knows_no_progress_gets_the_report_without_and_later_ones_at_once() -> None:
    refused = _problem("invalid-spec", 422, "progress: extra inputs are not permitted")
    accepted = httpx.Response(200, json={"decision": "stop"})
    api = Api(refused, accepted, accepted)
    progress = Progress(stage="preparing", done=1, total=2)
    shown = REPORT.model_copy(update={"progress": progress, "dataset_version": "v1"})
    assert [api.client.report(9, shown).decision for _ in range(2)] == [Decision.STOP] * 2
    first, second, third = (json.loads(request.content) for request in api.requests)
    assert first == shown.model_dump(mode="json", exclude={"weights", "confusion"})
    assert (
        second
        == third
        == REPORT.model_dump(mode="json", exclude={"weights", "progress", "dataset_version", "confusion"})
    )


def test_an_api_that_knows_no_confusion_matrices_gets_the_result_without() -> None:
    refused = _problem("invalid-spec", 422, "confusion: extra inputs are not permitted")
    api = Api(refused, httpx.Response(200, json={}))
    api.client.finish(9, FINISH.model_copy(update={"confusion": confusion(2)}))
    first, second = (json.loads(request.content) for request in api.requests)
    assert first.pop("confusion")["step"] == 2
    assert first == second
    with pytest.raises(ApiRefusedError):
        Api(refused, refused).client.finish(9, FINISH.model_copy(update={"confusion": confusion(2)}))


def test_a_report_that_is_refused_without_its_progress_too_is_refused() -> None:
    shown = REPORT.model_copy(update={"progress": Progress(stage="preparing", done=1, total=2)})
    refused = _problem("invalid-spec", 422, "metrics: not numbers")
    api = Api(refused, refused, httpx.Response(200, json={"decision": "stop"}))
    with pytest.raises(ApiRefusedError, match="not numbers"):
        api.client.report(9, shown)
    api.client.report(9, shown)
    assert "progress" in json.loads(api.requests[-1].content), "it was not to blame"


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
    assert Api(httpx.Response(200, json={"decision": decision})).client.report(9, REPORT).decision is decision


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


def test_a_lease_id_that_was_good_for_a_claim_is_stale() -> None:
    error = _error(_problem("stale-lease", 409), CLAIMING)
    assert isinstance(error, StaleLeaseError)
    assert str(error) == "the detail"


@pytest.mark.parametrize("response", [answer for answer in GONE if b"stale-lease" not in answer.content])
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


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(404, json={"detail": "Not Found"}), _problem("stale-lease", 409), _problem("not-found", 404)],
)
def test_an_api_that_does_not_take_a_log_refuses_it_and_the_lease_stays(answer: httpx.Response) -> None:
    api = Api(answer)
    part = LogRequest(attempt=1, lease_id=LEASE_ID, start=3, stop=6, text="abc")
    with pytest.raises(ApiRefusedError):
        api.client.append_log(9, part)
    [request] = api.requests
    assert (request.url.path, json.loads(request.content)) == ("/v1/trials/9/log", part.model_dump(mode="json"))


@pytest.mark.parametrize("study", [None, "of a proxy", "5f0c7a3e-9d1b-4c55-8a52-0123456789ab"])
def test_a_lease_has_the_uuid_of_its_study_from_a_header(study: str | None) -> None:
    headers = {} if study is None else {STUDY_HEADER: study}
    response = httpx.Response(200, content=make_lease().to_json(), headers=headers)
    lease = CLAIMING(Api(response).client)
    assert lease == make_lease(study_uuid=UUID(study) if study and "-" in study else None)
