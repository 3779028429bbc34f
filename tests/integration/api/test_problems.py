"""Every error has one form, and a failure of ours shows an id instead of a traceback."""

from __future__ import annotations

import logging

import httpx
import pytest

from api.problems import EXPLANATIONS, KINDS
from hpo import errors
from hpo.spec import StudySpec
from hpo.store import Database

from .service import Service, serving, spec

CODE = {"code": "hpo_of_a_link"}
FIELDS = {"type", "title", "status", "detail", "instance"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/studies/nothing", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v1/studies/", 404),
        ("PUT", "/v1/studies", 405),
        ("PUT", "/v1/studies/demo", 405),
        ("POST", "/v1/leases", 422),
        ("GET", "/v1/trials/x", 422),
        ("GET", f"/v1/trials/{2**63 - 1}", 404),
        ("GET", f"/v1/trials/{2**63}", 422),
        ("GET", "/v1/studies/demo/trials?limit=0", 422),
        ("GET", "/v1/studies/demo/export?format=xml", 422),
    ],
)
def test_errors_are_problem_details(empty_service: Service, method: str, path: str, status: int) -> None:
    with empty_service.http() as http:
        answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) - {"errors"} == FIELDS
    assert problem["status"] == status
    assert problem["instance"] == path.partition("?")[0]
    assert problem["title"]
    assert problem["detail"]
    assert (status == 422) == ("errors" in problem)


def test_a_wrong_method_says_which_are_right(empty_service: Service) -> None:
    with empty_service.http() as http:
        answer = http.put("/v1/studies", json={})
    assert {method.strip() for method in answer.headers["allow"].split(",")} & {"GET", "POST"}
    assert "does not take PUT" in answer.json()["detail"]


def test_the_type_of_a_problem_leads_to_its_explanation(empty_service: Service) -> None:
    with empty_service.http() as http:
        kind = http.get("/v1/studies/nothing").json()["type"]
        assert http.get(kind).text.strip() == errors.NotFoundError.__doc__
        assert http.get("/problems/nothing").status_code == 404


def test_every_error_of_ours_has_a_kind_and_the_first_match_is_the_most_special() -> None:
    def tree(kind: type[errors.HpoError]) -> set[type[errors.HpoError]]:
        return {kind}.union(*(tree(below) for below in kind.__subclasses__() if below.__module__ == "hpo.errors"))

    listed = [kind for kind, _, _ in KINDS]
    assert set(listed) == tree(errors.HpoError)
    for place, kind in enumerate(listed):
        assert not any(issubclass(kind, before) for before in listed[:place]), f"{kind.__name__} is never reached"
    assert {slug for _, slug, _ in KINDS} <= set(EXPLANATIONS)


def test_a_failure_of_ours_shows_an_id_that_the_log_knows(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: StudySpec) -> StudySpec:
        raise RuntimeError("the secret of the house")

    with serving(database, check_spec=broken) as service, service.http() as http, caplog.at_level(logging.ERROR):
        answer = http.post("/v1/studies", params=CODE, json=spec())
        assert http.get("/v1/health").status_code == 200
    assert answer.status_code == 500
    problem = answer.json()
    assert set(problem) == FIELDS
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    number = problem["detail"].rsplit(" ", 1)[1]
    (record,) = [record for record in caplog.records if number in record.getMessage()]
    assert record.exc_info is not None
    assert "the secret of the house" in str(record.exc_info[1])
    assert CODE["code"] not in caplog.text, "an address may have the code of a link in it"


def test_a_refusal_is_logged_without_what_the_address_asks_for(
    empty_service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with empty_service.http("read") as http:
        assert http.get("/v1/tokens", params=CODE).status_code == 403
    assert caplog.text.count("GET /v1/tokens: this needs a token with the scope 'admin'") == 1
    assert CODE["code"] not in caplog.text


def test_problems_of_a_spec_read_like_the_file(http: httpx.Client) -> None:
    wrong = spec(space={"lr": {"type": "float", "low": 0.1, "high": 0.01}}, budget={"trails": 3})
    problem = http.post("/v1/studies", json=wrong).json()
    assert problem["detail"].startswith("the study spec has ")
    assert {error["path"] for error in problem["errors"]} >= {"space.lr", "budget.trails"}
    assert "did you mean 'trials'" in problem["detail"]


@pytest.mark.parametrize("levels", [150, 900])
def test_a_body_without_bottom_is_refused(http: httpx.Client, levels: int) -> None:
    body = '{"guesses": [' + '{"a": ' * levels + "1" + "}" * levels + "]}"
    answer = http.post("/v1/studies/demo/trials", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "nested too deeply" in answer.json()["detail"]
