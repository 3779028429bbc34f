"""What people see of running trials and of workers: in the API, in its stream and on the page of the workers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ..store.world import run
from .service import Service, claim_body, fence, measured

PROGRESS: dict[str, Any] = {
    "stage": "training",
    "done": 120,
    "total": 300,
    "epoch": 3,
    "epochs": 40,
    "loss": 1.25,
    "learning_rate": 0.01,
    "clips_per_second": 85.0,
    "waiting": 0.125,
    "memory_bytes": 2**30,
    "seconds_left": 720.0,
}
PREPARING: dict[str, Any] = {"stage": "preparing", "step": "flow", "done": 120, "total": 480, "seconds_left": 180.0}
NASTY = "<script>alert(1)</script>"
BACKWARDS = "\u202e"
"""Reverses what comes after it."""


def _claim(http: httpx.Client, name: str, host: str = "here") -> dict[str, Any]:
    body = claim_body(name)
    body["worker"]["host"] = host
    lease: dict[str, Any] = http.post("/v1/leases", json=body).raise_for_status().json()
    return lease


def _report(http: httpx.Client, lease: dict[str, Any], progress: dict[str, Any] | None) -> int:
    body = {**fence(lease), **({} if progress is None else {"progress": progress})}
    return http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body).status_code


def _known(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found["progress"].items() if value not in (None, "")}


def _seen(http: httpx.Client) -> list[dict[str, Any]]:
    """Return the one worker, its trial in the list of all, and its trial alone."""
    (worker,) = http.get("/v1/workers").json()
    (listed,) = http.get("/v1/studies/demo/trials").json()["trials"]
    return [worker, listed, http.get("/v1/studies/demo/trials/0").json()]


def test_how_far_a_trial_is_is_seen_while_it_runs(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = _claim(http, "w1")
    assert [each["progress"] for each in _seen(http)] == [None] * 3
    for sent, seen in ((PREPARING, PREPARING), (PROGRESS, PROGRESS), (None, PROGRESS)):  # a worker may send none
        assert _report(http, lease, sent) == 200
        worker, listed, detail = _seen(http)
        assert [_known(each) for each in (worker, listed, detail)] == [seen] * 3
        assert worker["progress_at"] == listed["progress_at"] == detail["progress_at"] > detail["started_at"]
        assert (worker["trial_study"], worker["trial_number"]) == ("demo", 0)
    release = {**fence(lease), "reason": "drained"}
    http.post(f"/v1/trials/{lease['trial_id']}/release", json=release).raise_for_status()
    assert http.get("/v1/studies/demo/trials/0").json()["progress"] is None
    _claim(http, "w2")
    assert http.get("/v1/studies/demo/trials/0").json()["progress"] is None, "that was the attempt before"


@pytest.mark.parametrize(
    "wrong",
    [
        {"stage": "sleeping"},
        {"done": -1},
        {"total": 2**60},
        {"waiting": 1.5},
        {"memory_bytes": 2**63},
        {"step": "x" * 101},
        {"colour": "blue"},
    ],
)
def test_progress_has_bounds(empty_service: Service, wrong: dict[str, Any]) -> None:
    lease = {"trial_id": 1, "attempt": 1, "lease_id": "c5e1bd49-2d0c-4c6f-9a0c-6f5a0a3a9f61"}
    with empty_service.http("worker") as http:
        assert [_report(http, lease, each) for each in (PROGRESS, {**PROGRESS, **wrong})] == [404, 422]


def test_the_stream_says_how_far_running_trials_are(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = _claim(http, "w1")
    found: list[tuple[int, int]] = []
    ids = []
    with http.stream("GET", "/v1/studies/demo/events/stream") as stream:
        lines = stream.iter_lines()
        _report(http, lease, PREPARING)
        while len(found) < 2:
            line = next(lines)
            ids += [line] if line.startswith("id: ") else []
            if line == "event: trial.progress":
                said = json.loads(next(lines).removeprefix("data: "))
                assert (said["kind"], said["actor"]) == ("trial.progress", "w1")
                found.append((said["trial_number"], said["detail"]["done"]))
                _report(http, lease, {**PROGRESS, "done": 200})
    assert found == [(0, 120), (0, 200)], "each once"
    assert len(ids) == len(http.get("/v1/studies/demo/events").json()), "there is nothing to continue from"


def _fail(http: httpx.Client, name: str, host: str, message: str, *, fault: str = "storage", times: int = 2) -> None:
    """Let a worker fail; two times put it into quarantine."""
    for _ in range(times):
        lease = _claim(http, name, host)
        end = {**fence(lease), "reason": "crashed", "fault": fault, "message": message}
        http.post(f"/v1/trials/{lease['trial_id']}/release", json=end).raise_for_status()


def test_the_page_shows_workers_with_their_trials_and_faults(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 12)  # a trial that was given back waits for a while
    assert "none was heard of yet" in http.get("/workers").text
    busy = _claim(http, "busy")
    _report(http, busy, PROGRESS)
    _report(http, _claim(http, "prepares"), PREPARING)
    _claim(http, "starts")
    _fail(http, "lost " + NASTY, "here", NASTY, fault="device")
    _fail(http, "without", "here", f"no folder {NASTY}", fault="files", times=1)
    _fail(http, "a", "gpu host", f"the disk is full{BACKWARDS}")
    _fail(http, "b", "gpu host", "the disk is full")
    answer = http.get("/workers")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    html = answer.text
    assert NASTY not in html
    assert BACKWARDS not in html
    assert "the disk is full\\u202e)" in html
    assert "3 in quarantine, 3 training, 1 waiting" in html
    assert '<a href="/studies/demo/trials/0">trial 0 of demo</a>' in html
    assert "<p>epoch 3/40, batch 120/300</p>" in html
    assert "loss 1.2500, lr 0.01, 85 clips/s, 12 % waiting for data, 1.0 GiB, 12 min left" in html
    assert "data set: computing optical flow 120/480 videos" in html
    assert "2 faults in a row, the last: device (&lt;script&gt;alert(1)&lt;/script&gt;)" in html
    assert "hpo workers release &#39;lost &lt;script&gt;" in html
    assert "no trials of demo until " in html
    assert 'whose <a href="/data-sets">files</a> it has not found (no folder &lt;script&gt;' in html
    assert "<strong>Host gpu host is in quarantine</strong>" in html
    assert "hpo workers release --host &#39;gpu host&#39;" in html
    http.post(f"/v1/trials/{busy['trial_id']}/reports", json=measured(busy, 1, 0.5)).raise_for_status()
    run(service.database, "UPDATE worker SET last_seen = last_seen - interval '25 h' WHERE name IN ('busy', 'a')")
    html = http.get("/workers").text
    assert "Not shown: 1 not heard of for a day." in html
    assert 'class="name"><strong>a</strong></p>' in html, "what is in quarantine stays until somebody has seen it"


def test_all_workers_of_a_host_are_released_by_its_name(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 9)
    for name in ("a", "b"):
        _fail(http, name, "sick", "the disk is full")
    found = {worker["name"]: worker for worker in http.get("/v1/workers").json()}
    assert [(found[name]["host_fault"], found[name]["host_fault_message"]) for name in "ab"] == [
        ("storage", "the disk is full")
    ] * 2
    wrong = [{}, {"name": "a", "host": "sick"}]
    assert [http.post("/v1/workers/release", json=body).status_code for body in wrong] == [422, 422]
    assert http.post("/v1/workers/release", json={"host": "elsewhere"}).status_code == 404
    assert http.post("/v1/workers/release", json={"host": "sick"}).status_code == 204
    assert [(each["quarantined_at"], each["host_quarantined_at"]) for each in http.get("/v1/workers").json()] == [
        (None, None)
    ] * 2


def test_a_stranger_is_asked_for_a_token_and_comes_to_the_login_page(service: Service) -> None:
    with service.http(None) as http:
        answer = http.get("/workers", headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert "Log in" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
