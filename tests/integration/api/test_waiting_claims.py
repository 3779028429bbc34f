"""Claims that wait for a trial: they get it when it comes, and who has gone gets none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from hpo.store import Database

from .service import Service, claim_body, fence, serving

WAIT = {"Prefer": "wait=3600"}
SECONDS = 30.0


@pytest.fixture
def patient(database: Database) -> Iterator[Service]:
    """A server that would hold a claim for longer than any test lasts."""
    with serving(database, claim_wait_seconds=3600.0) as service:
        yield service


def until(condition: Callable[[], Any], what: str) -> None:
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(f"{what} did not happen within {SECONDS:g} s")


def _is_waiting(service: Service, name: str) -> bool:
    """Return whether the first look of a worker's claim is over, and the service hears of new trials."""
    with service.database.transaction() as connection:
        asked = connection.execute(text("SELECT FROM worker WHERE name = :name"), {"name": name}).first()
        query = text("SELECT FROM pg_stat_activity WHERE query = 'LISTEN hpo_trials' AND datname = current_database()")
        return asked is not None and connection.execute(query).first() is not None


def _claim(service: Service, name: str, **changes: Any) -> httpx.Response:
    with service.http("worker") as http:
        return http.post("/v1/leases", json=claim_body(name, **changes), headers=WAIT)


def _waiting(service: Service, pool: ThreadPoolExecutor, name: str, **changes: Any) -> Future[httpx.Response]:
    future = pool.submit(_claim, service, name, **changes)
    until(lambda: _is_waiting(service, name), "a claim")
    return future


def test_a_trial_that_comes_is_given_to_the_claim_that_waits(patient: Service) -> None:
    study = patient.create()
    with ThreadPoolExecutor() as pool:
        answer = _waiting(patient, pool, "w1")
        (trial,) = patient.suggest(study)
        assert answer.result(SECONDS).json()["trial_id"] == trial.id


def test_each_of_several_that_wait_gets_one(patient: Service) -> None:
    study = patient.create()
    with ThreadPoolExecutor() as pool:
        answers = [_waiting(patient, pool, name) for name in ("w1", "w2", "w3")]
        elsewhere = _waiting(patient, pool, "w4", study="demo")
        found = patient.suggest(study, 4)
        taken = {answer.result(SECONDS).json()["trial_id"] for answer in [*answers, elsewhere]}
    assert taken == {trial.id for trial in found}


@pytest.mark.parametrize("reason", ["drained", "paused"])
def test_a_trial_that_is_given_back_is_given_on(patient: Service, reason: str) -> None:
    (trial,) = patient.suggest(patient.create())
    with ThreadPoolExecutor() as pool, patient.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body("w0")).json()
        answer = _waiting(patient, pool, "w1")
        http.post(f"/v1/trials/{trial.id}/release", json={**fence(lease), "reason": reason}).raise_for_status()
        assert answer.result(SECONDS).json()["attempt"] == 2


def test_a_study_that_is_resumed_gives_its_trials(patient: Service) -> None:
    (trial,) = patient.suggest(patient.create())
    with ThreadPoolExecutor() as pool, patient.http() as http:
        http.post("/v1/studies/demo/pause").raise_for_status()
        answer = _waiting(patient, pool, "w1")
        http.post("/v1/studies/demo/resume").raise_for_status()
        assert answer.result(SECONDS).json()["trial_id"] == trial.id


def test_a_worker_that_is_gone_gets_no_trial(patient: Service) -> None:
    study = patient.create()
    place = urlsplit(patient.url)
    body = json.dumps(claim_body("gone")).encode()
    head = (
        f"POST /v1/leases HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {patient.tokens['worker']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nPrefer: wait=3600\r\n\r\n"
    )
    with socket.create_connection((place.hostname, place.port)) as gone:
        gone.sendall(head.encode() + body)
        until(lambda: _is_waiting(patient, "gone"), "a claim")
    with ThreadPoolExecutor() as pool:
        answer = _waiting(patient, pool, "w1")
        (trial,) = patient.suggest(study)
        assert answer.result(SECONDS).json()["trial_id"] == trial.id
    with patient.database.transaction() as connection:
        assert connection.execute(text("SELECT worker FROM attempt")).scalars().all() == ["w1"]


@pytest.mark.parametrize("header", ["wait=0", "wait", "respond-async", "wait=x", "wait=-1", "await=5"])
def test_who_does_not_ask_to_wait_is_told_when_to_come_back(patient: Service, header: str) -> None:
    with patient.http("worker") as http:
        answer = http.post("/v1/leases", json=claim_body(), headers={"Prefer": header})
    assert (answer.status_code, answer.headers["retry-after"] in ("1", "2")) == (204, True)


@pytest.mark.parametrize("header", ["wait=1", "respond-async, wait=1", 'Wait = "1"'])
def test_who_has_waited_may_ask_again_at_once(service: Service, header: str) -> None:
    with service.http("worker") as http:
        answer = http.post("/v1/leases", json=claim_body(), headers={"Prefer": header})
    assert (answer.status_code, answer.headers["retry-after"]) == (204, "0")
