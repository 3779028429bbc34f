"""No optimizer: workers get quasi-random trials after a short wait, and never two at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import text

from api.dashboard.source import DatabaseSource
from hpo.cli.studies import warnings_of
from hpo.service.fallback import WARNING_SECONDS, Fallback
from hpo.spec import parse_spec
from hpo.store import Database, optimizers, studies
from hpo.store.study_row import NO_OPTIMIZER

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
        known = {"status": "degraded", "version": http.get("/v1/health").json()["version"]}
        for credentials in ({}, {"Authorization": "Bearer x"}, {"Cookie": "hpo_session_80=x"}):
            assert httpx.get(f"{service.url}/v1/health", headers=credentials).json() == known, "of a stranger"
        assert httpx.get(f"{service.url}/v1/health?strict=true").status_code == 503
        with service.http("read") as reader:
            assert reader.get("/v1/health").json()["optimizer"] == "missing"


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


def test_the_health_of_the_service_is_not_that_of_studies_that_it_cannot_read(database: Database) -> None:
    with serving(database) as service, service.http() as http:
        service.create(name="broken")
        with database.transaction() as connection:
            connection.execute(text("UPDATE study SET spec = spec || '{\"of_a_later_release\": 1}'"))
        assert (http.get("/v1/health").json()["status"], http.get("/v1/health").json()["optimizer"]) == ("ok", "idle")
        study_id = service.create()
        assert http.get("/v1/health").json()["optimizer"] == "missing"
        with database.transaction() as connection:
            assert studies.acquire_generator(connection, study_id, "optimizer", 600) is not None
        assert http.get("/v1/health").json()["optimizer"] == "ok"


def test_a_study_without_an_optimizer_says_so(database: Database) -> None:
    with serving(database) as service, service.http() as http:
        study_id = service.create()

        def said() -> tuple[str | None, str | None, str | None]:
            (listed,), shown = http.get("/v1/studies").json(), http.get("/v1/studies/demo").json()
            (view,) = DatabaseSource(database).studies()
            assert warnings_of(shown) == ([f"warning: {shown['degraded']}"] if shown["degraded"] else [])
            return listed["degraded"], shown["degraded"], view.user_attrs.get("degraded")

        assert said() == (None, None, None), "an optimizer has some seconds to begin"
        with database.transaction() as connection:
            connection.execute(text("UPDATE study SET created_at = created_at - interval '31 s'"))
            connection.execute(text("UPDATE study SET state_changed_at = created_at"))
        assert said() == (NO_OPTIMIZER,) * 3
        with database.transaction() as connection:
            assert studies.acquire_generator(connection, study_id, "optimizer", 600) is not None
        assert said() == (None, None, None)
        with database.transaction() as connection:
            optimizers.look(connection, "another", 3600)
            studies.release_generator(connection, study_id, "optimizer")
        assert said() == (None, None, None), "another takes in a moment what one has handed over"
        with database.transaction() as connection:
            connection.execute(text("UPDATE optimizer SET looked_at = looked_at - interval '11 s'"))
        assert said() == (NO_OPTIMIZER,) * 3
        assert http.post("/v1/studies/demo/pause").status_code == 200
        assert said() == (None, None, None), "a paused study needs none"


def test_the_log_says_that_there_is_no_optimizer_but_not_with_each_trial(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = [0.0]
    fallback = Fallback(after_seconds=0, clock=lambda: seconds[0])
    with database.transaction() as connection:
        studies.create(connection, parse_spec(spec()), actor="test")
        for seconds[0] in (0.0, WARNING_SECONDS - 1, WARNING_SECONDS):
            assert fallback.suggest(connection, None)
            connection.execute(text("UPDATE trial SET state = 'withdrawn', finished_at = clock_timestamp()"))
    assert [record.getMessage() for record in caplog.records] == [f"study demo: {NO_OPTIMIZER}"] * 2


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


def test_a_used_up_space_gives_nothing_more_and_ends(database: Database) -> None:
    space = {"clip.stride": {"type": "int", "low": 1, "high": 2}}
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        service.create(space=space)
        leases = [http.post("/v1/leases", json=claim_body(f"w{place}")).json() for place in range(2)]
        assert {lease["params"]["clip.stride"] for lease in leases} == {1, 2}
        assert http.post("/v1/leases", json=claim_body("w2")).status_code == 204
        for lease in leases:
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5)).raise_for_status()
        assert http.get("/v1/studies/demo").json()["state"] == "completed"


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
