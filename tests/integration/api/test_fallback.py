"""No optimizer: workers get quasi-random trials after a short wait, and never two at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from hpo.service.fallback import Fallback
from hpo.spec import parse_spec
from hpo.store import Database, studies

from .service import Service, claim_body, finished, serving, spec


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


def test_claims_wait_for_an_optimizer_that_holds_its_lease(database: Database) -> None:
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        study_id = service.create()
        with database.transaction() as connection:
            assert studies.acquire_generator(connection, study_id, "optimizer", 600) is not None
        assert http.post("/v1/leases", json=claim_body()).status_code == 204
        assert http.get("/v1/health").json()["optimizer"] == "ok"
        with database.transaction() as connection:
            connection.execute(text("UPDATE study SET generator_expires_at = clock_timestamp()"))
        assert http.post("/v1/leases", json=claim_body()).status_code == 200


def test_the_wait_begins_with_the_first_claim_without_a_trial(database: Database) -> None:
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


def test_what_a_person_asked_for_comes_first(database: Database) -> None:
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        service.create(optimizer={"enqueue": [{"lr": 0.2}]})
        http.post("/v1/studies/demo/trials", json={"guesses": [{"lr": 0.1, "dropout": 0.5}]})
        leases = [http.post("/v1/leases", json=claim_body(f"w{place}")).json() for place in range(3)]
        assert leases[0]["params"]["lr"] == 0.2
        assert leases[1]["params"] == {"lr": 0.1, "dropout": 0.5}
        made = [http.get(f"/v1/trials/{lease['trial_id']}").json()["generator"] for lease in leases]
        assert made == ["enqueued", "enqueued", "sobol (fallback)"]


def test_it_gives_what_is_expected_to_fit(database: Database) -> None:
    """Frames x batch needs up to 64 times what the device has; the first trials, of an optimizer, have shown it."""
    space = {
        "clip.frames": {"type": "int", "low": 8, "high": 64, "log": True},
        "batch_size": {"type": "int", "low": 4, "high": 64, "log": True},
    }
    tried = [{"clip.frames": frames, "batch_size": batch} for frames in (8, 12) for batch in (4, 6, 8)]
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        study_id = service.create(space=space, budget={"trials": 30})
        service.suggest(study_id, points=tried)
        for point in tried:
            lease = http.post("/v1/leases", json=claim_body()).json()
            end = finished(lease, 0.5, peak_memory_bytes=point["clip.frames"] * point["batch_size"] * 2**26)
            assert http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).status_code == 200
        with database.transaction() as connection:
            studies.release_generator(connection, study_id, "optimizer")
        for _ in range(8):
            params = http.post("/v1/leases", json=claim_body()).json()["params"]
            assert params["clip.frames"] * params["batch_size"] * 2**26 <= 1.1 * 2**33


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


def test_a_paused_study_gets_no_fallback_suggestion(service: Service) -> None:
    fallback = Fallback(after_seconds=0)
    service.create()
    with service.http() as http:
        http.post("/v1/studies/demo/pause")
    with service.database.transaction() as connection:
        assert not fallback.suggest(connection, None)
        assert not fallback.suggest(connection, "demo")


def test_the_trials_of_the_fallback_keep_the_rules(database: Database) -> None:
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        service.create(rules=["lr * 10 >= 1", "lr <= 0.12"])
        found = [http.post("/v1/leases", json=claim_body(f"w{place}")).json()["params"]["lr"] for place in range(4)]
    assert all(0.1 <= lr <= 0.12 for lr in found)
    assert len(set(found)) == 4
