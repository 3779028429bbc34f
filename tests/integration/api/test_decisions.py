"""What a worker is told after a report, and what happens at the end of a study."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import text

from hpo.service.upkeep import run_upkeep

from .service import Service, claim_body, fence, finished, measured

MEDIAN = {"name": "median", "min_epochs": 2, "startup_trials": 2}


def _claim(http: httpx.Client, name: str = "w1") -> dict[str, Any]:
    answer = http.post("/v1/leases", json=claim_body(name))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _report(http: httpx.Client, lease: dict[str, Any], body: dict[str, Any]) -> str:
    answer = http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["decision"])


def test_a_paused_study_pauses_its_trials_which_are_claimed_first_after_a_resume(
    service: Service, http: httpx.Client
) -> None:
    service.suggest(service.create(), 2)
    lease = _claim(http)
    http.post("/v1/studies/demo/pause")
    assert _report(http, lease, fence(lease)) == "pause"
    assert _report(http, lease, measured(lease, 1, 0.1)) == "pause"
    release = {**fence(lease), "reason": "paused", "checkpoint": "/c"}
    assert http.post(f"/v1/trials/{lease['trial_id']}/release", json=release).status_code == 204
    http.post("/v1/studies/demo/resume")
    assert _claim(http)["trial_id"] == lease["trial_id"]


def test_a_rung_pauses_and_promotes_and_stops_what_is_left(service: Service, http: httpx.Client) -> None:
    rule = {"name": "asha", "min_epochs": 1, "reduction": 2, "startup_trials": 0, "pause": True}
    service.suggest(service.create(early_stopping=rule, budget={"trials": 4}), 4)

    def pause(lease: dict[str, Any], value: float) -> None:
        assert _report(http, lease, measured(lease, 1, value)) == "pause"
        body = {**fence(lease), "reason": "paused", "checkpoint": f"/c/{lease['number']}"}
        assert http.post(f"/v1/trials/{lease['trial_id']}/release", json=body).status_code == 204

    best = _claim(http, "w0")
    assert _report(http, best, measured(best, 1, 0.5)) == "continue"
    second = _claim(http, "w1")
    pause(second, 0.4)
    third = _claim(http, "w1")
    assert third["number"] == 2, "a held trial is not handed out"
    pause(third, 0.1)
    pause(_claim(http, "w1"), 0.05)  # two of four go on: that promotes the second
    again = _claim(http, "w1")
    assert (again["number"], again["attempt"], again["checkpoint"]) == (1, 2, "/c/1")
    assert http.post("/v1/leases", json=claim_body("w2")).status_code == 204, "the others stay held"
    for lease, value in ((best, 0.9), (again, 0.6)):
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, value))
    found = {trial["number"]: trial for trial in http.get("/v1/studies/demo/trials").json()["trials"]}
    assert [found[n]["state"] for n in range(4)] == ["completed", "completed", "stopped", "stopped"]
    assert found[2]["metrics"]["val_top1"] == 0.1
    assert http.get("/v1/studies/demo").json()["state"] == "completed"


def test_a_study_paused_by_a_person_holds_no_trial(service: Service, http: httpx.Client) -> None:
    rule = {"name": "asha", "startup_trials": 0, "pause": True}
    service.suggest(service.create(early_stopping=rule), 2)
    lease = _claim(http)
    http.post("/v1/studies/demo/pause")
    assert _report(http, lease, measured(lease, 1, 0.1)) == "pause"
    http.post(f"/v1/trials/{lease['trial_id']}/release", json={**fence(lease), "reason": "paused"})
    http.post("/v1/studies/demo/resume")
    assert _claim(http)["trial_id"] == lease["trial_id"]


def test_a_stopped_study_stops_its_trials_and_keeps_their_results(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = _claim(http)
    http.post("/v1/studies/demo/stop")
    assert _report(http, lease, measured(lease, 1, 0.4)) == "stop"
    body = {**fence(lease), "outcome": "stopped", "metrics": {"val_top1": 0.4}}
    assert http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).json()["state"] == "stopped"
    assert http.get("/v1/studies/demo/best").json()["value"] == 0.4


def test_a_cancelled_trial_is_abandoned(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = _claim(http)
    cancelled = http.post("/v1/studies/demo/trials/0/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "running")
    assert _report(http, lease, measured(lease, 1, 0.9)) == "abandon"


def test_cancelling_a_waiting_trial_ends_it_at_once(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    assert http.post("/v1/studies/demo/trials/0/cancel").json()["state"] != "suggested"
    assert http.post("/v1/leases", json=claim_body()).status_code == 204


def test_the_stopping_rule_is_asked_when_something_was_measured(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(early_stopping=MEDIAN), 3)
    for value in (0.8, 0.9):
        lease = _claim(http)
        for step in range(1, 11):
            assert _report(http, lease, measured(lease, step, value * step / 10)) == "continue"
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, value))
    poor = _claim(http)
    assert _report(http, poor, measured(poor, 1, 0.01)) == "continue", "before min_epochs"
    assert _report(http, poor, measured(poor, 3, 0.01)) == "stop"
    assert _report(http, poor, fence(poor)) == "continue", "a heartbeat decides nothing"
    assert _report(http, poor, measured(poor, 3, 0.01)) == "stop", "the answer to the first may have been lost"


def test_a_study_without_a_rule_never_stops_a_trial(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 3)
    for value in (0.9, 0.8, 0.0):
        lease = _claim(http)
        assert all(_report(http, lease, measured(lease, step, value)) == "continue" for step in range(1, 10))
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, value))


def test_a_reached_target_stops_what_runs_and_completes_the_study(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(budget={"trials": 20, "target": {"val_top1": 0.9}}), 3)
    winner, other = _claim(http, "w1"), _claim(http, "w2")
    http.post(f"/v1/trials/{winner['trial_id']}/finish", json=finished(winner, 0.95))
    assert http.post("/v1/leases", json=claim_body("w3")).status_code == 204
    assert _report(http, other, measured(other, 1, 0.2)) == "stop"
    body = {**fence(other), "outcome": "stopped", "metrics": {"val_top1": 0.2}}
    http.post(f"/v1/trials/{other['trial_id']}/finish", json=body)
    study = http.get("/v1/studies/demo").json()
    assert (study["state"], "target" in study["state_reason"]) == ("completed", True)


def test_the_report_that_uses_up_the_gpu_hours_gets_stop_and_nothing_more_is_claimed(
    service: Service, http: httpx.Client
) -> None:
    service.suggest(service.create(budget={"gpu_hours": 1.0}), 3)
    first, second = _claim(http, "w1"), _claim(http, "w2")
    assert _report(http, first, measured(first, 1, 0.3)) == "continue"
    half = measured(first, 2, 0.4)
    half["measurements"][0]["gpu_seconds"] = 3599.5
    assert _report(http, first, half) == "stop"
    assert http.post("/v1/leases", json=claim_body("w3")).status_code == 204
    assert _report(http, second, fence(second)) == "stop"
    body = {**fence(first), "outcome": "stopped", "metrics": {"val_top1": 0.4}}
    assert http.post(f"/v1/trials/{first['trial_id']}/finish", json=body).json()["state"] == "stopped"
    # The other had not finished an epoch: its worker gives it back, and that ends the study.
    release = {**fence(second), "reason": "drained"}
    assert http.post(f"/v1/trials/{second['trial_id']}/release", json=release).status_code == 204
    study = http.get("/v1/studies/demo").json()
    assert (study["state"], study["state_reason"]) == ("completed", "the budget of 1 GPU hours is used up")
    assert study["trial_counts"] == {"stopped": 2, "withdrawn": 1}


def test_nothing_is_claimed_once_the_hours_are_used_up_though_nobody_has_looked(
    service: Service, http: httpx.Client
) -> None:
    """A trial that ran into the limit without a report: the claim itself counts."""
    service.suggest(service.create(budget={"gpu_hours": 1.0}), 2)
    lease = _claim(http)
    with service.database.transaction() as connection:
        connection.execute(text("UPDATE attempt SET claimed_at = claimed_at - interval '61 minutes'"))
    assert http.post("/v1/leases", json=claim_body("w2")).status_code == 204
    assert _report(http, lease, fence(lease)) == "stop"


def test_the_last_trial_completes_the_study_without_waiting_for_upkeep(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(budget={"trials": 1}))
    lease = _claim(http)
    assert _report(http, lease, measured(lease, 1, 0.5)) == "continue", "a full budget lets what runs finish"
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5))
    assert http.get("/v1/studies/demo").json()["state"] == "completed"


def test_three_invalid_trials_in_a_row_pause_the_study(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 4)
    for _ in range(3):
        lease = _claim(http)
        body = {**fence(lease), "outcome": "failed", "failure_kind": "invalid", "failure_message": "no folder /data"}
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body)
    study = http.get("/v1/studies/demo").json()
    assert study["state"] == "paused"
    assert "no folder /data" in study["state_reason"]


def test_upkeep_gives_the_trials_of_silent_workers_back(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = _claim(http)
    expire = text("UPDATE trial SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE state = 'running'")
    with service.database.transaction() as connection:
        connection.execute(expire)
    run_upkeep(service.database)
    trial = http.get(f"/v1/trials/{lease['trial_id']}").json()
    assert trial["state"] == "suggested"
    late = http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5))
    assert (late.status_code, late.json()["state"]) == (200, "completed"), "nobody else had it"


@pytest.mark.parametrize("outcome", ["completed", "stopped"])
def test_an_unknown_trial_is_not_found(empty_service: Service, outcome: str) -> None:
    body = {"attempt": 1, "lease_id": claim_body()["lease_id"], "outcome": outcome, "metrics": {"val_top1": 0.1}}
    with empty_service.http("worker") as http:
        assert http.post("/v1/trials/987654321/finish", json=body).status_code == 404


def test_a_trial_cancelled_in_a_paused_study_is_abandoned_and_not_paused(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = _claim(http)
    http.post("/v1/studies/demo/pause")
    http.post("/v1/studies/demo/trials/0/cancel")
    assert _report(http, lease, measured(lease, 1, 0.9)) == "abandon"
