"""The OpenAPI document: complete, with readable operation ids, and true about its examples."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hpo.protocol import (
    ClaimRequest,
    FilesRequest,
    FinishRequest,
    LogRequest,
    ReleaseRequest,
    RemovalsRequest,
    ReportRequest,
)
from hpo.spec import StudySpec, parse_spec

from .service import Service


def _document(service: Service) -> dict[str, Any]:
    with service.http(None) as http:
        return dict(http.get("/openapi.json").json())


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def test_every_operation_has_a_name_a_sentence_and_its_errors(empty_service: Service) -> None:
    operations = _operations(_document(empty_service))
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(set(names)) == len(names)
    for path, method, operation in operations:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"]), operation["operationId"]
        assert operation["description"].rstrip().endswith("."), (path, method)
        assert operation["tags"]
        if path not in ("/v1/health", "/v1/health/live", "/v1/identity"):
            assert operation["security"] == [{"HTTPBearer": []}], path
            problem = operation["responses"]["401"]["content"]["application/problem+json"]
            assert problem["schema"]["$ref"].endswith("/Problem")
        invalid = operation["responses"].get("422")
        assert invalid is None or "application/problem+json" in invalid["content"], (path, method)


def test_all_references_lead_somewhere(empty_service: Service) -> None:
    document = _document(empty_service)
    known = document["components"]["schemas"]
    for reference in re.findall(r"'#/components/schemas/([^']+)'", repr(document)):
        assert reference in known, reference


def test_the_examples_are_valid(empty_service: Service) -> None:
    bodies: dict[str, Callable[[Any], object]] = {
        "create_study": parse_spec,
        "claim_trial": ClaimRequest.model_validate,
        "report_trial": ReportRequest.model_validate,
        "finish_trial": FinishRequest.model_validate,
        "release_trial": ReleaseRequest.model_validate,
        "append_log": LogRequest.model_validate,
        "plan_files": FilesRequest.model_validate,
        "give_up_files": RemovalsRequest.model_validate,
    }
    seen = set()
    for _, _, operation in _operations(_document(empty_service)):
        check = bodies.get(operation["operationId"])
        if check is not None:
            for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
                check(example["value"])
                seen.add(operation["operationId"])
    assert seen == set(bodies)


def test_the_spec_is_described_as_the_body_of_a_new_study(empty_service: Service) -> None:
    document = _document(empty_service)
    content = document["paths"]["/v1/studies"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/yaml"}
    assert set(document["components"]["schemas"]["StudySpec"]["properties"]) == set(StudySpec.model_fields)


def test_the_page_for_people_is_there(empty_service: Service) -> None:
    with empty_service.http(None) as http:
        assert "swagger" in http.get("/docs").text.lower()
