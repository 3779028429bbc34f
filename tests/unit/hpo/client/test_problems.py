"""What an answer of the API means: problems by their type, other answers by their status."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.problems import KINDS
from hpo import errors
from hpo.client.problems import detail_of, error_of, is_problem, is_temporary, retry_after_seconds
from hpo.errors import HpoError, SpecError


def _problem(slug: str, status: int, **fields: Any) -> httpx.Response:
    content = {"type": f"/problems/{slug}", "title": "Title", "status": status, "detail": "the detail", **fields}
    return httpx.Response(status, json=content, headers={"content-type": "application/problem+json; charset=utf-8"})


@pytest.mark.parametrize(("kind", "slug", "status"), KINDS)
def test_every_error_that_the_api_names_comes_back_as_its_class(kind: type[HpoError], slug: str, status: int) -> None:
    error = error_of(_problem(slug, status))
    assert type(error) is kind
    assert str(error) == "the detail"


@pytest.mark.parametrize(
    ("slug", "kind"),
    [("invalid-spec", SpecError), ("invalid-guess", errors.GuessError), ("invalid-request", SpecError)],
)
def test_wrong_fields_come_back_one_by_one(slug: str, kind: type[SpecError]) -> None:
    fields = [{"path": "space.lr.low", "message": "must be positive"}, {"path": "name", "message": "is taken"}]
    error = error_of(_problem(slug, 422, errors=fields))
    assert type(error) is kind
    assert isinstance(error, SpecError)
    assert [(issue.path, issue.message) for issue in error.issues] == [
        ("space.lr.low", "must be positive"),
        ("name", "is taken"),
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.AuthenticationError),
        (403, errors.PermissionDeniedError),
        (404, errors.NotFoundError),
        (410, errors.NotFoundError),
        (409, errors.ConflictError),
        (500, HpoError),
        *((status, errors.StoreUnavailableError) for status in (502, 503, 504)),  # of a proxy whose service is away
        (418, HpoError),
    ],
)
def test_an_answer_without_a_problem_type_is_understood_by_its_status(status: int, kind: type[HpoError]) -> None:
    assert type(error_of(httpx.Response(status, text="no"))) is kind
    assert type(error_of(httpx.Response(status, json={"type": "about:blank", "detail": "no"}))) is kind
    assert type(error_of(_problem("from-a-later-version", status))) is kind


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        (httpx.Response(400, json={"detail": "what is wrong", "title": "Title"}), "what is wrong"),
        (httpx.Response(400, json={"title": "Title"}), "Title"),
        (httpx.Response(400, json=["not", "an object"]), '["not","an object"]'),
        (httpx.Response(502, text="<h1>Bad gateway</h1>"), "<h1>Bad gateway</h1>"),
        (httpx.Response(502, text="x" * 1000), "x" * 300),
        (httpx.Response(502, content=b"\xff{"), "\ufffd{"),
        (httpx.Response(502), "Bad Gateway"),
    ],
)
def test_the_detail_is_the_sentence_of_a_problem_or_the_beginning_of_the_body(
    response: httpx.Response, detail: str
) -> None:
    assert detail_of(response) == detail


def test_a_body_that_claims_to_be_a_problem_and_is_not_json_does_not_disturb() -> None:
    response = httpx.Response(409, content=b"{", headers={"content-type": "application/problem+json"})
    assert type(error_of(response)) is errors.ConflictError


def test_problems_are_known_by_their_media_type() -> None:
    assert is_problem(_problem("conflict", 409))
    assert not is_problem(httpx.Response(409, json={}))
    assert not is_problem(httpx.Response(409))


@pytest.mark.parametrize(
    ("status", "temporary"),
    [(400, False), (401, False), (404, False), (408, True), (409, False), (429, True), (500, True), (599, True)],
)
def test_errors_of_the_server_and_of_too_many_requests_are_temporary(status: int, temporary: bool) -> None:
    assert is_temporary(httpx.Response(status)) is temporary


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)
def test_retry_after_is_read_in_seconds(header: str, seconds: float | None) -> None:
    assert retry_after_seconds(httpx.Response(503, headers={"Retry-After": header})) == seconds


def test_an_answer_may_name_no_wait() -> None:
    assert retry_after_seconds(httpx.Response(503)) is None
