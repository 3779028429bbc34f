"""Logs of attempts: kept once, bounded, fenced, and read by anybody who may read."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from hpo.protocol import LOG_KEPT_BYTES, LOG_PART_BYTES

from .service import Service, claim_body, fence, finished


def _lease(service: Service, http: httpx.Client) -> dict[str, Any]:
    service.suggest(service.create())
    return dict(http.post("/v1/leases", json=claim_body()).raise_for_status().json())


def _send(http: httpx.Client, lease: dict[str, Any], start: int, content: str, **changes: Any) -> int:
    """Return the status of the answer."""
    body = {**fence(lease), "start": start, "stop": start + len(content), "text": content, **changes}
    return http.post(f"/v1/trials/{lease['trial_id']}/log", json=body).status_code


def _read(http: httpx.Client, **query: int) -> dict[str, Any]:
    return dict(http.get("/v1/studies/demo/trials/0/log", params=query).raise_for_status().json())


def test_parts_are_kept_once_and_read_from_a_place_on(service: Service, http: httpx.Client) -> None:
    lease = _lease(service, http)
    empty = _read(http)
    sent = [_send(http, lease, 0, "one\n"), _send(http, lease, 0, "one\n"), _send(http, lease, 4, "two\n")]
    assert sent == [204, 204, 204]
    about = {"attempt": 1, "worker": "w1", "ended_as": None}
    assert empty == {**about, "start": 0, "stop": 0, "text": ""}
    assert _read(http) == {**about, "start": 0, "stop": 8, "text": "one\ntwo\n"}
    assert _read(http, after=4) == {**about, "start": 4, "stop": 8, "text": "two\n"}
    assert _read(http, after=8) == {**about, "start": 8, "stop": 8, "text": ""}


def test_only_the_end_of_a_long_log_is_kept(service: Service, http: httpx.Client) -> None:
    lease = _lease(service, http)
    parts = 8
    for number in range(parts):
        assert _send(http, lease, number * LOG_PART_BYTES, str(number) * LOG_PART_BYTES) == 204
    kept = _read(http)
    assert (kept["start"], kept["stop"]) == (parts * LOG_PART_BYTES - LOG_KEPT_BYTES, parts * LOG_PART_BYTES)
    assert kept["text"] == "".join(digit * LOG_PART_BYTES for digit in "4567")


def test_what_is_kept_of_a_log_is_bounded_whatever_its_worker_says(service: Service, http: httpx.Client) -> None:
    lease = _lease(service, http)
    far = 2**50
    # A byte of the log that is 64 KiB of text; parts that overlap; parts from the end to the beginning.
    sent = [_send(http, lease, place, "é" * LOG_PART_BYTES, stop=place + 1) for place in range(3)]
    sent += [_send(http, lease, place, "b" * LOG_PART_BYTES) for place in range(8)]
    sent += [_send(http, lease, far - place * LOG_PART_BYTES, "c" * LOG_PART_BYTES) for place in range(8)]
    assert sent == 3 * [422] + 16 * [204]
    kept = _read(http)
    assert (kept["text"], kept["stop"]) == ("c" * LOG_PART_BYTES, far + LOG_PART_BYTES)


@pytest.mark.parametrize("other", [{"lease_id": str(uuid4())}, {"attempt": 2}])
def test_nobody_else_writes_into_a_log(service: Service, http: httpx.Client, other: dict[str, Any]) -> None:
    lease = _lease(service, http)
    assert _send(http, {**lease, **other}, 0, "not mine") == 409
    assert _send(http, {**lease, "trial_id": 10**6}, 0, "of no trial") == 404
    assert _read(http)["text"] == ""


def test_each_attempt_has_a_log_of_its_own_which_outlives_it(service: Service, http: httpx.Client) -> None:
    first = _lease(service, http)
    _send(http, first, 0, "the first\n")
    http.post(f"/v1/trials/{first['trial_id']}/release", json={**fence(first), "reason": "drained"}).raise_for_status()
    second = http.post("/v1/leases", json=claim_body("w2")).raise_for_status().json()
    assert _send(http, first, 10, "too late") == 409
    _send(http, second, 0, "the second\n")
    http.post(f"/v1/trials/{second['trial_id']}/finish", json=finished(second, 0.5)).raise_for_status()
    logs = [(found["worker"], found["ended_as"], found["text"]) for found in (_read(http, attempt=1), _read(http))]
    assert logs == [("w1", "drained", "the first\n"), ("w2", "completed", "the second\n")]
    missing = http.get("/v1/studies/demo/trials/0/log", params={"attempt": 3})
    assert (missing.status_code, missing.json()["detail"]) == (404, "trial 0 has no attempt 3: it has 2")


def test_a_trial_that_nobody_has_claimed_has_no_log(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    answer = http.get("/v1/studies/demo/trials/0/log")
    assert (answer.status_code, "no worker has claimed it yet" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize("stop", [0, LOG_PART_BYTES + 1])
def test_a_part_has_a_size_within_its_limits(service: Service, http: httpx.Client, stop: int) -> None:
    assert _send(http, _lease(service, http), 0, "text", stop=stop) == 422


def test_logs_go_with_their_study(service: Service, http: httpx.Client) -> None:
    lease = _lease(service, http)
    _send(http, lease, 0, "one\n")
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5)).raise_for_status()
    http.post("/v1/studies/demo/stop").raise_for_status()
    http.delete("/v1/studies/demo").raise_for_status()
    with service.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM log_part")).scalar_one() == 0
