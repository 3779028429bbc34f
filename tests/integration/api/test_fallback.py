"""No optimizer: workers get quasi-random trials after a short wait, and never two at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from api.fallback import Fallback
from hpo.spec import parse_spec
from hpo.store import Database, studies

from .service import Service, claim_body, serving, spec


def test_a_starving_worker_gets_a_quasi_random_trial(database: Database) -> None:
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        service.create()
        lease = http.post("/v1/leases", json=claim_body()).json()
        trial = http.get(f"/v1/trials/{lease['trial_id']}").json()
        assert "fallback" in trial["generator"]
        parse_spec(spec()).check_params(lease["params"])
        assert http.post("/v1/leases", json=claim_body("w2")).json()["params"] != lease["params"]
        assert http.get("/v1/health").json() == {
            "status": "degraded",
            "version": http.get("/v1/health").json()["version"],
            "database": "ok",
            "optimizer": "missing",
        }
        assert http.get("/v1/health?strict=true").status_code == 503


def test_an_optimizer_that_lives_is_waited_for(database: Database) -> None:
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        study_id = service.create()
        with database.transaction() as connection:
            assert studies.acquire_generator(connection, study_id, "optimizer", 600) is not None
        assert http.post("/v1/leases", json=claim_body()).status_code == 204
        assert http.get("/v1/health").json()["optimizer"] == "ok"
        with database.transaction() as connection:
            connection.execute(text("UPDATE study SET generator_expires_at = clock_timestamp()"))
        assert http.post("/v1/leases", json=claim_body()).status_code == 200


def test_the_wait_begins_with_the_first_claim_that_got_nothing(database: Database) -> None:
    now = 100.0
    fallback = Fallback(after_seconds=5, clock=lambda: now)
    with database.transaction() as connection:
        study_id = studies.create(connection, parse_spec(spec()), actor="test").id
        assert not fallback.suggest(connection, None)
        now = 104.9
        assert not fallback.suggest(connection, "demo")
        studies.acquire_generator(connection, study_id, "optimizer", 600)
        assert not fallback.suggest(connection, None)
        studies.release_generator(connection, study_id, "optimizer")
        now = 109.0
        assert not fallback.suggest(connection, None), "an optimizer was there meanwhile"
        now = 114.0
        assert fallback.suggest(connection, None)
        assert not fallback.suggest(connection, None), "the one that is there was not claimed yet"
        assert studies.acquire_generator(connection, study_id, "optimizer", 600), "its lease is given back"


def test_it_keeps_to_the_budget(database: Database) -> None:
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        service.create(budget={"trials": 2})
        answers = [http.post("/v1/leases", json=claim_body(f"w{i}")).status_code for i in range(4)]
        assert answers == [200, 200, 204, 204]


def test_many_workers_at_once_get_different_trials(database: Database) -> None:
    with serving(database, fallback_seconds=0.0) as service:
        service.create()
        barrier = threading.Barrier(8)

        def claim(number: int) -> list[str]:
            found = []
            with service.http("worker") as http:
                barrier.wait(10)
                for _ in range(4):
                    answer = http.post("/v1/leases", json=claim_body(f"w{number}"))
                    assert answer.status_code in (200, 204), answer.text
                    if answer.status_code == 200:
                        found.append(repr(answer.json()["params"]))
            return found

        with ThreadPoolExecutor(8) as pool:
            found = [params for part in pool.map(claim, range(8)) for params in part]
    assert 1 <= len(found) <= 20
    assert len(set(found)) == len(found)
    with database.transaction() as connection:
        numbers = connection.execute(text("SELECT number FROM trial ORDER BY number")).scalars().all()
    assert numbers == list(range(len(numbers)))


def test_a_paused_study_gets_none(service: Service) -> None:
    fallback = Fallback(after_seconds=0)
    service.create()
    with service.http() as http:
        http.post("/v1/studies/demo/pause")
    with service.database.transaction() as connection:
        assert not fallback.suggest(connection, None)
        assert not fallback.suggest(connection, "demo")
