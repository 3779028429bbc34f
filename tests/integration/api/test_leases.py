"""What workers call: every call repeats safely, and only the owner of a lease is heard."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from hpo.cli.studies import warnings_of

from .service import Service, claim_body, fence, finished, measured


def test_a_claim_brings_everything_that_a_run_needs(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), points=[{"lr": 0.02, "dropout": 0.5}])
    body = claim_body()
    lease = http.post("/v1/leases", json=body).json()
    assert (lease["study"], lease["number"], lease["attempt"], lease["epochs_done"]) == ("demo", 0, 1, 0)
    assert lease["lease_id"] == body["lease_id"]
    assert (lease["config"]["lr"], lease["config"]["dropout"], lease["config"]["batch_size"]) == (0.02, 0.5, 4)
    assert lease["task"]["dataset"]["root"] == "/data/ucf101"
    assert lease["lease_seconds"] == 60
    assert 0 < lease["heartbeat_seconds"] <= 20


def test_the_same_claim_again_finds_the_same_trial(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 2)
    body = claim_body()
    first, again = http.post("/v1/leases", json=body), http.post("/v1/leases", json=body)
    assert first.json() == again.json()
    assert http.post("/v1/leases", json=claim_body("w2")).json()["trial_id"] != first.json()["trial_id"]


def test_nothing_to_do_says_when_to_come_back(service: Service, http: httpx.Client) -> None:
    answer = http.post("/v1/leases", json=claim_body())
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["retry-after"] in ("1", "2")
    (worker,) = http.get("/v1/workers").json()
    assert (worker["name"], worker["alive"], worker["trial_id"]) == ("w1", True, None)


def test_a_claim_for_one_study_gets_no_other(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    service.create(name="other")
    assert http.post("/v1/leases", json=claim_body(study="other")).status_code == 204
    assert http.post("/v1/leases", json=claim_body(study="dmeo")).status_code == 404
    assert http.post("/v1/leases", json=claim_body(study="demo")).json()["study"] == "demo"


def test_reports_are_kept_once(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    path = f"/v1/trials/{lease['trial_id']}"
    for _ in range(2):
        answer = http.post(f"{path}/reports", json=measured(lease, 1, 0.25))
        assert answer.json() == {"decision": "continue"}
    http.post(f"{path}/reports", json=measured(lease, 2, 0.5))
    trial = http.get(path).json()
    assert trial["curve"] == {"1": {"val_top1": 0.25, "val_loss": 0.75}, "2": {"val_top1": 0.5, "val_loss": 0.5}}
    assert (trial["epochs_done"], trial["gpu_seconds"], trial["last_metrics"]["val_top1"]) == (2, 2.0, 0.5)
    assert trial == http.get("/v1/studies/demo/trials/0").json()
    kinds = [event["kind"] for event in http.get("/v1/studies/demo/events").json()]
    assert kinds.count("trial.measured") == 2


def test_a_heartbeat_without_measurements_renews_the_lease(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    expire = text("UPDATE trial SET lease_expires_at = clock_timestamp() + interval '1 second'")
    left = text("SELECT extract(epoch FROM lease_expires_at - clock_timestamp()) FROM trial")
    with service.database.transaction() as connection:
        connection.execute(expire)
    assert http.post(f"/v1/trials/{lease['trial_id']}/reports", json=fence(lease)).json()["decision"] == "continue"
    with service.database.transaction() as connection:
        assert connection.execute(left).scalar_one() > 30


def test_a_finish_is_accepted_once_and_confirmed_again(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    path = f"/v1/trials/{lease['trial_id']}/finish"
    first, again = (http.post(path, json=finished(lease, 0.5)) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert (first.json()["state"], first.json()["metrics"]) == ("completed", {"val_top1": 0.5})
    assert http.post(path, json=finished(lease, 0.9)).status_code == 409
    assert http.post(f"/v1/trials/{lease['trial_id']}/reports", json=fence(lease)).status_code == 409


def test_a_failure_keeps_its_kind_and_traceback(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    message = "the loss became NaN\nTraceback: \x00 \ud800"
    body = {**fence(lease), "outcome": "failed", "failure_kind": "diverged", "failure_message": message}
    path = f"/v1/trials/{lease['trial_id']}/finish"
    ended = http.post(path, content=json.dumps(body), headers={"content-type": "application/json"}).json()
    assert (ended["state"], ended["failure_kind"], ended["metrics"]) == ("failed", "diverged", None)
    assert ended["failure_message"] == "the loss became NaN\nTraceback: ? ?"


def test_a_lease_names_its_study_for_good_in_a_header(service: Service, http: httpx.Client) -> None:
    for name in ("one", "two"):
        service.suggest(service.create(name=name), 2)
    answers = [http.post("/v1/leases", json=claim_body(f"w{number}")) for number in range(4)]
    uuids = {(answer.json()["study"], UUID(answer.headers["Study-Uuid"])) for answer in answers}
    assert len(uuids) == len({uuid for _, uuid in uuids}) == 2
    # Workers of earlier releases refuse fields that they do not know.
    assert not any("study_uuid" in answer.json() for answer in answers)


@pytest.mark.parametrize("call", ["reports", "finish", "release"])
@pytest.mark.parametrize("forged", [{"attempt": 2}, {"lease_id": str(uuid4())}])
def test_calls_under_a_stale_lease_conflict_and_change_nothing(
    service: Service, http: httpx.Client, call: str, forged: dict[str, Any]
) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    bodies: dict[str, dict[str, Any]] = {
        "reports": measured(lease, 1, 0.9),
        "finish": finished(lease, 0.9),
        "release": {**fence(lease), "reason": "drained"},
    }
    answer = http.post(f"/v1/trials/{lease['trial_id']}/{call}", json={**bodies[call], **forged})
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/stale-lease"
    trial = http.get(f"/v1/trials/{lease['trial_id']}").json()
    assert (trial["state"], trial["curve"]) == ("running", {})


@pytest.mark.parametrize("call", ["reports", "finish", "release", "log"])
def test_a_lease_is_of_no_use_with_another_token(service: Service, http: httpx.Client, call: str) -> None:
    service.suggest(service.create())
    request = claim_body()
    lease = http.post("/v1/leases", json=request).json()
    path = f"/v1/trials/{lease['trial_id']}"
    bodies: dict[str, dict[str, Any]] = {
        "reports": measured(lease, 1, 0.9),
        "finish": finished(lease, 0.9),
        "release": {**fence(lease), "reason": "drained"},
        "log": {**fence(lease), "start": 0, "stop": 3, "text": "abc"},
    }
    with service.http("worker") as thief:
        answer = thief.post(f"{path}/{call}", json=bodies[call])
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/stale-lease")
        assert thief.post("/v1/leases", json=request).status_code == 409, "nor for the claim itself, repeated"
    trial = http.get(path).json()
    assert (trial["state"], trial["curve"]) == ("running", {})
    assert http.post(f"{path}/{call}", json=bodies[call]).is_success


def test_events_name_no_lease(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.9))
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.9))
    seen = [
        http.get(path).text for path in ("/v1/studies/demo/events", f"/v1/trials/{lease['trial_id']}", "/v1/workers")
    ]
    assert "trial.claimed" in seen[0]
    assert not any(lease["lease_id"] in text for text in seen)


def test_another_worker_resumes_a_released_trial(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    path = f"/v1/trials/{lease['trial_id']}"
    http.post(f"{path}/reports", json={**measured(lease, 1, 0.3), "checkpoint": "/c/1.pt"})
    released = http.post(f"{path}/release", json={**fence(lease), "reason": "drained", "checkpoint": "/c/1.pt"})
    assert (released.status_code, released.content) == (204, b"")
    taken = http.post("/v1/leases", json=claim_body("w2")).json()
    assert (taken["trial_id"], taken["attempt"], taken["checkpoint"]) == (lease["trial_id"], 2, "/c/1.pt")
    assert taken["epochs_done"] == 1


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/leases", {"lease_id": "x", "worker": {}}, "worker.name"),
        ("/v1/leases", {"lease_id": "x", "worker": {}}, "lease_id"),
        ("/v1/trials/1/reports", {"attempt": 1, "lease_id": str(uuid4()), "steps": 3}, "steps"),
        ("/v1/trials/1/reports", {"attempt": 10**12, "lease_id": str(uuid4())}, "attempt"),
        ("/v1/trials/1/finish", {"attempt": 1, "lease_id": str(uuid4()), "outcome": "won"}, "outcome"),
        ("/v1/trials/1/finish", {"attempt": 1, "lease_id": str(uuid4()), "outcome": "failed"}, ""),
        ("/v1/trials/1/release", {"attempt": 1, "lease_id": str(uuid4())}, "reason"),
        ("/v1/trials/-1/release", {"attempt": 1, "lease_id": str(uuid4()), "reason": "drained"}, "trial_id"),
    ],
)
def test_a_wrong_body_names_the_field(empty_service: Service, path: str, body: dict[str, Any], field: str) -> None:
    with empty_service.http("worker") as http:
        answer = http.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid-request"
    assert field in [error["path"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_metric_that_is_not_finite_is_refused(service: Service, number: str) -> None:
    service.suggest(service.create())
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).json()
        body = (
            f'{{"attempt": 1, "lease_id": "{lease["lease_id"]}", "measurements": [{{"step": 1,'
            f' "metrics": {{"val_top1": {number}}}, "wall_seconds": 1, "gpu_seconds": 1}}]}}'
        )
        headers = {"content-type": "application/json"}
        answer = http.post(f"/v1/trials/{lease['trial_id']}/reports", content=body, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["path"] == "measurements[0].metrics.val_top1"
        assert http.get(f"/v1/trials/{lease['trial_id']}").json()["curve"] == {}


@pytest.mark.parametrize(("clips", "told"), [(16.0, 1), (400.0, 0), (None, 0)])
def test_too_few_validation_clips_are_an_event_once(
    service: Service, http: httpx.Client, clips: float | None, told: int
) -> None:
    service.suggest(service.create(), 2)
    for _ in range(2):
        lease = http.post("/v1/leases", json=claim_body()).json()
        for step in (1, 2):
            report = measured(lease, step, 0.5)
            if clips is not None:
                report["measurements"][0]["metrics"]["val_clips"] = clips
            http.post(f"/v1/trials/{lease['trial_id']}/reports", json=report).raise_for_status()
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5)).raise_for_status()
    events = http.get("/v1/studies/demo/events").json()
    found = [event["detail"] for event in events if event["kind"] == "study.few_clips"]
    assert len(found) == told
    assert all(detail["clips"] == clips and "below 0.19 cannot be seen" in detail["message"] for detail in found)


def test_a_data_set_that_changed_between_two_trials_is_said_everywhere(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 4)

    def train(version: str | None) -> dict[str, Any]:
        lease = http.post("/v1/leases", json=claim_body()).json()
        report = measured(lease, 1, 0.5)
        if version is not None:
            report["dataset_version"] = version
        answer = http.post(f"/v1/trials/{lease['trial_id']}/reports", json=report).raise_for_status().json()
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5)).raise_for_status()
        return dict(answer)

    def told() -> list[str]:
        return [event["message"] for event in events() if event["kind"] == "study.data_changed"]

    def events() -> list[dict[str, Any]]:
        return [{"kind": e["kind"], **e["detail"]} for e in http.get("/v1/studies/demo/events").json()]

    old, new = "a" * 32, "b" * 32
    assert train(old) == {"decision": "continue"}, "no field that workers of earlier releases would refuse"
    assert train(None) == {"decision": "continue"}
    study = http.get("/v1/studies/demo").json()
    assert (study["data_changed"], told()) == (None, [])
    notices = [train(new)["notice"] for _ in range(2)]
    assert notices == ["the data set is version bbbbbbbbbbbb here, and another trial was trained on aaaaaaaaaaaa"] * 2
    assert told() == notices[:1], "once"
    study = http.get("/v1/studies/demo").json()
    sentence = study["data_changed"]
    assert "not comparable: 1 on aaaaaaaaaaaa (from trial 0), 2 on bbbbbbbbbbbb (from trial 2)" in sentence
    assert f"warning: {sentence}" in warnings_of(study)
    trials = http.get("/v1/studies/demo/trials").json()["trials"]
    assert [trial["dataset_version"] for trial in trials] == [old, None, new, new]
    assert "1 on aaaaaaaaaaaa (from trial 0)" in http.get("/studies/demo").text
    assert "found other data on" in http.get("/studies/demo").text


# ---------------------------------------------------------------- faults of machines


def test_a_worker_in_quarantine_gets_the_answer_without_a_trial_and_the_reason(service: Service) -> None:
    service.suggest(service.create(), 5)
    with service.http("worker") as http:
        for _ in range(2):
            lease = http.post("/v1/leases", json=claim_body("sick")).json()
            end = {**fence(lease), "reason": "crashed", "fault": "device", "message": "the GPU is lost (Übung)"}
            assert http.post(f"/v1/trials/{lease['trial_id']}/release", json=end).status_code == 204
        answer = http.post("/v1/leases", json=claim_body("sick"))
        assert answer.status_code == 204
        reason = "2 faults in a row, the last one of its GPU: the GPU is lost (Übung)"
        assert unquote(answer.headers["Worker-Quarantine"]) == reason
        assert int(answer.headers["Retry-After"]) > 0
        assert http.post("/v1/leases", json=claim_body("well")).status_code == 200
        (sick,) = [each for each in http.get("/v1/workers").json() if each["name"] == "sick"]
        assert (sick["faults"], sick["fault"], sick["quarantined_at"] is not None) == (2, "device", True)
    with service.http("admin") as http:
        assert http.post("/v1/workers/release", json={"name": "sick"}).status_code == 204
        assert http.post("/v1/workers/release", json={"name": "nobody"}).status_code == 404
    with service.http("worker") as http:
        assert http.post("/v1/leases", json=claim_body("sick")).status_code == 200


@pytest.mark.parametrize("scope", ["worker", "read"])
def test_only_an_admin_ends_a_quarantine(service: Service, scope: str) -> None:
    with service.http(scope) as http:
        assert http.post("/v1/workers/release", json={"name": "sick"}).status_code == 403


@pytest.mark.parametrize(
    ("reason", "fault", "status"),
    [("crashed", None, 204), ("crashed", "device", 204), ("crashed", "bad luck", 422), ("drained", "device", 422)],
)
def test_a_fault_is_one_that_is_known_and_belongs_to_a_crash(
    service: Service, reason: str, fault: str | None, status: int
) -> None:
    """Workers of earlier releases send none."""
    service.suggest(service.create(), 1)
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).json()
        end = {**fence(lease), "reason": reason} | ({} if fault is None else {"fault": fault})
        assert http.post(f"/v1/trials/{lease['trial_id']}/release", json=end).status_code == status
