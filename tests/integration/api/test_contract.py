"""Whatever is sent to a route: no server error, and an answer as the OpenAPI document describes it.

schemathesis makes the requests from the document, valid and invalid ones; names and ids in their paths are mostly those
of a study with a past.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine

from hpo.store import studies, tokens, trials

from .history import make_history
from .service import KEY, Service, claim_body, fence, serving_alone
from .test_auth import NEEDS

EXAMPLES: Final = int(os.environ.get("HPO_CONTRACT_EXAMPLES", "6"))
"""Requests of each kind to each route; more for a long search by hand."""
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
STREAM: Final = "/v1/studies/{name}/events/stream"
ROUTES: Final = sorted(
    (path, method) for method, path in NEEDS if path.startswith(("/v1/", "/metrics")) and path != STREAM
)
TAKES_NOTHING: Final = ("/v1/health/live", "GET")
"""No parameter, no body and no token: no request to it can be wrong."""
FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers of the connection, which the client sets itself: a false one makes no request; the HTTP server answers it."""
LAST: Final = ("/v1/studies/{name}", "DELETE")
"""Deletes what the others are tried on."""


@pytest.fixture(scope="module")
def past(postgres_admin: Engine, migrated_template: str) -> Iterator[Service]:
    """A server with a study of ten trials, for this module alone: its requests change everything."""
    with serving_alone(postgres_admin, migrated_template) as running:
        make_history(running)
        yield running


@pytest.fixture(scope="module")
def places(past: Service) -> dict[str, list[Any]]:
    """Names and ids that exist, by the parameter of a path, and one that does not."""
    with past.database.transaction() as connection:
        study = studies.get(connection, "demo")
        known = [record.id for record in trials.records(connection, study.id)]
        for _ in range(3):
            tokens.create(connection, name="spare", scopes=["read"], key=KEY)
        spare = [row.id for row in tokens.list_all(connection) if row.name == "spare"]
    return {
        "name": ["demo", "demo", "demo", "nothing"],
        "number": [0, 4, 8, 9, 10**6],
        "trial_id": [*known, 10**9],
        "token_id": [*spare, 10**9],
        "study_id": [study.id, 10**9],
    }


def _claimed(past: Service) -> dict[str, Any]:
    """Return the lease of a trial, of a study of its own, that the admin's token has claimed."""
    name = f"study-{uuid4().hex}"
    past.suggest(past.create(name=name))
    with past.http() as http:
        return dict(http.post("/v1/leases", json=claim_body(study=name)).raise_for_status().json())


@pytest.fixture(scope="module")
def schema(past: Service) -> Any:
    """The OpenAPI document of the server."""
    return schemathesis.openapi.from_url(f"{past.url}/openapi.json")


@pytest.mark.parametrize(
    ("route", "mode"),
    [
        pytest.param(route, mode, id=f"{' '.join(route)}-{mode.value}")
        for route in sorted(ROUTES, key=lambda route: route == LAST)
        for mode in GenerationMode
        if (route, mode) != (TAKES_NOTHING, GenerationMode.NEGATIVE)
    ],
)
def test_every_answer_keeps_the_contract(
    past: Service, places: dict[str, list[Any]], schema: Any, mode: GenerationMode, route: tuple[str, str]
) -> None:
    path, method = route
    operation = schema[path][method]
    headers = {"Authorization": f"Bearer {past.tokens['admin']}"}
    lease = _claimed(past) if path.startswith("/v1/trials/") and method == "POST" else None

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def check(case: Any, data: st.DataObject) -> None:
        # Of tokens only spare ones: the others would include our own.
        if data.draw(st.integers(0, 3)) or "{token_id}" in path:
            for parameter in case.path_parameters or {}:
                case.path_parameters[parameter] = data.draw(st.sampled_from(places[parameter]))
        if lease is not None and isinstance(case.body, dict) and data.draw(st.integers(0, 3)):
            case.path_parameters["trial_id"] = lease["trial_id"]
            case.body |= fence(lease)
        # It also leaves the token out, or makes one up; what that opens is the matter of test_auth.
        request = case.as_transport_kwargs()
        for name in [name for name in request["headers"] if name.lower() in FRAMING]:
            del request["headers"][name]
        request["headers"].update(headers)
        answer = requests.request(**request, timeout=30)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code not in (401, 403)

    check()
