"""How often a worker's call asks the database: each question is a round trip, and there are few."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from hpo.store import Database
from tests.postgres_proxy import Questions, counted

from .service import Service, claim_body, fence, finished, measured, serving


@pytest.fixture
def asked(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Service, Questions]]:
    """A server whose way to the database is counted, without the signs of life of idle connections."""
    monkeypatch.setattr("hpo.store.database.IDLE_SECONDS", math.inf)
    with counted(database_url) as (url, questions):
        database = Database(url)
        try:
            with serving(database) as service:
                yield service, questions
        finally:
            database.close()


def _asked_by(questions: Questions, call: Callable[[], httpx.Response]) -> int:
    questions.take()
    call().raise_for_status()
    return len(questions.take())


@pytest.mark.parametrize(
    ("rule", "report", "finish"),
    [("none", 2, 3), ("median", 4, 3), ("asha", 4, 3)],
)
def test_a_call_of_a_worker_asks_the_database_a_few_times(
    asked: tuple[Service, Questions], rule: str, report: int, finish: int
) -> None:
    service, questions = asked
    study = service.create(early_stopping={"name": rule, **({} if rule == "none" else {"startup_trials": 1})})
    service.complete(study, 2)
    service.suggest(study, points=[{"lr": 0.2, "dropout": 0.2}, {"lr": 0.3, "dropout": 0.3}])
    with service.http("worker") as http:
        leases: list[dict[str, Any]] = []

        def claim() -> httpx.Response:
            answer = http.post("/v1/leases", json=claim_body())
            leases.append(answer.json())
            return answer

        claim()  # the first of each kind prepares its statement on the connection
        assert _asked_by(questions, claim) == 2
        lease = leases[0]
        path = f"/v1/trials/{lease['trial_id']}"
        for step in (1, 2, 3):
            body = measured(lease, step, 0.4)
            assert _asked_by(questions, partial(http.post, f"{path}/reports", json=body)) <= report, step
        heartbeat = _asked_by(questions, partial(http.post, f"{path}/reports", json=fence(lease)))
        assert heartbeat == 2
        assert _asked_by(questions, partial(http.post, f"{path}/finish", json=finished(lease, 0.4))) <= finish
