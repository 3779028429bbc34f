"""Trials, curves, best, export, events, workers: what a study has found."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from hpo.results.export import load_export

from .service import Service, claim_body, finished, measured


def test_trials_come_in_pages_by_number(past_service: Service) -> None:
    with past_service.http("read") as http:
        first = http.get("/v1/studies/demo/trials", params={"limit": 7}).json()
        assert [trial["number"] for trial in first["trials"]] == list(range(7))
        rest = http.get("/v1/studies/demo/trials", params={"limit": 7, "after": first["next_after"]}).json()
        assert [trial["number"] for trial in rest["trials"]] == [7, 8, 9]
        assert rest["next_after"] is None
        assert "curve" not in first["trials"][0]
        assert first["trials"][0]["last_metrics"].keys() == {"val_top1", "val_loss"}
        query = {"state": ["failed", "running"]}
        some = http.get("/v1/studies/demo/trials", params=query).json()["trials"]
        assert [(trial["number"], trial["state"]) for trial in some] == [(4, "failed"), (8, "running")]
        assert (some[0]["failure_kind"], some[0]["failure_message"]) == ("oom", "CUDA out of memory")


def test_curves_give_one_metric_of_all_trials(past_service: Service) -> None:
    with past_service.http("read") as http:
        top1 = http.get("/v1/studies/demo/curves").json()
        loss = http.get("/v1/studies/demo/curves", params={"metric": "val_loss"}).json()
        assert http.get("/v1/studies/demo/curves", params={"metric": "nothing"}).json()["curves"] == []
    assert (top1["metric"], loss["metric"]) == ("val_top1", "val_loss")
    lengths = {curve["number"]: len(curve["steps"]) for curve in top1["curves"]}
    assert lengths == {0: 10, 1: 4, 2: 10, 3: 10, 5: 10, 6: 4, 7: 10, 8: 4}
    for one, other in zip(top1["curves"], loss["curves"], strict=True):
        assert other["values"] == pytest.approx([1 - value for value in one["values"]])


def test_the_best_trial_is_feasible_and_has_its_curve_and_its_evidence(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(constraints=["val_loss <= 0.5"]), 4)
    ends = [("completed", 0.7, 0.4), ("completed", 0.9, 0.6), ("stopped", 0.3, 0.1), ("completed", 0.6, 0.1)]
    for outcome, value, loss in ends:
        lease = http.post("/v1/leases", json=claim_body()).json()
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, value / 2))
        body = {**finished(lease, value), "outcome": outcome, "metrics": {"val_top1": value, "val_loss": loss}}
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body)
    best = http.get("/v1/studies/demo/best").json()
    assert (best["number"], best["value"], best["metric"], best["direction"]) == (0, 0.7, "val_top1", "maximize")
    assert best["curve"] == {"1": {"val_top1": 0.35, "val_loss": 0.65}}
    assert http.get("/v1/studies").json()[0]["best"]["number"] == 0
    evidence = best["evidence"]
    assert http.get("/v1/studies/demo").json()["best"]["evidence"] == evidence
    assert (evidence["rank"], evidence["configurations"], evidence["trials"]) == (1, 3, [0])
    assert (evidence["highest_trial"], evidence["highest_observed"]) == (0, 0.7)
    assert evidence["expected"] < evidence["believed"], "the best of three is expected to be worse than it looks"


def test_the_answer_ranks_every_configuration_that_keeps_the_constraints(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(constraints=["val_loss <= 0.5"]), 4)
    assert http.get("/v1/studies/demo/answer").status_code == 404
    for value, loss in [(0.7, 0.4), (0.9, 0.6), (0.3, 0.1), (0.75, 0.1)]:
        lease = http.post("/v1/leases", json=claim_body()).json()
        body = {**finished(lease, value), "metrics": {"val_top1": value, "val_loss": loss}}
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body)
    answer = http.get("/v1/studies/demo/answer").json()
    assert [found["chosen"] for found in answer["configurations"]] == [3, 0, 2]
    assert sum(found["probability_best"] for found in answer["configurations"]) == pytest.approx(1)
    assert (answer["front"], answer["highest_trial"], answer["highest_observed"]) == ([3], 3, 0.75)
    assert [found["estimates"]["val_top1"]["observed"] for found in answer["configurations"]] == [0.75, 0.7, 0.3]
    other = http.get("/v1/studies/demo/export", params={"trial": 2, "format": "json"}).json()["evidence"]
    assert (other["rank"], other["is_clear"], other["observed"]) == (3, False, 0.3)
    assert http.get("/v1/studies/demo/export", params={"trial": 1, "format": "json"}).json().get("evidence") is None


def test_a_mean_over_the_last_epochs_is_the_value_wherever_one_is_shown(service: Service, http: httpx.Client) -> None:
    objective = {"metric": "val_top1", "last_epochs": 2}
    budget = {"trials": 20, "target": {"val_top1": 0.65}}
    study_id = service.create(objectives=[objective], budget=budget)
    service.suggest(study_id, 2)
    for values in ([0.1, 0.7, 0.5], [0.1, 0.1, 0.9]):
        lease = http.post("/v1/leases", json=claim_body()).json()
        for step, value in enumerate(values, start=1):
            http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, step, value))
        body = finished(lease, values[-1])
        answers = [http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200], "the same result again is confirmed"
    best = http.get("/v1/studies/demo/best").json()
    assert (best["number"], best["value"]) == (0, pytest.approx(0.6))
    assert best["curve"]["3"]["val_top1"] == 0.5, "curves show single epochs"
    trials = http.get("/v1/studies/demo/trials").json()["trials"]
    assert [trial["metrics"]["val_top1"] for trial in trials] == pytest.approx([0.6, 0.5])
    export = http.get("/v1/studies/demo/export", params={"format": "json"}).json()
    assert (export["objectives"], export["last_epochs"]) == ({"val_top1": best["value"]}, {"val_top1": 2})
    assert http.get("/v1/studies/demo").json()["state"] == "active", "no mean has reached the target"


@pytest.mark.parametrize("rest", ["best", "export"])
def test_a_study_without_a_completed_trial_is_explained(service: Service, http: httpx.Client, rest: str) -> None:
    service.suggest(service.create())
    answer = http.get(f"/v1/studies/demo/{rest}")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("no trial of study 'demo' has completed yet")


def test_the_export_reads_back(past_service: Service, tmp_path: Path) -> None:
    with past_service.http("read") as http:
        best = http.get("/v1/studies/demo/best").json()
        as_yaml = http.get("/v1/studies/demo/export")
        as_json = http.get("/v1/studies/demo/export", params={"format": "json"})
        other = http.get("/v1/studies/demo/export", params={"trial": 1, "format": "json"}).json()
        running = http.get("/v1/studies/demo/export", params={"trial": 8})
        assert http.get("/v1/studies/demo/export", params={"trial": 99}).status_code == 404
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert as_yaml.headers["content-disposition"] == 'attachment; filename="demo.yaml"'
    (tmp_path / "best.yaml").write_text(as_yaml.text)
    (tmp_path / "best.json").write_text(as_json.text)
    export = load_export(tmp_path / "best.yaml")
    assert export == load_export(tmp_path / "best.json")
    assert (export.trial, export.objectives) == (best["number"], {"val_top1": best["value"]})
    assert export.config["lr"] == best["params"]["lr"], "to the last digit"
    assert (export.dataset_version, export.environment) == ("d1", {"python": "3.11"})
    assert export.checkpoint == f"/c/{best['number']}.pt"
    assert (other["trial"], other["state"], other["epochs_done"]) == (1, "stopped", 4)
    assert running.status_code == 409
    assert "is running" in running.json()["detail"]


def test_events_are_listed_once_and_in_order(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.5))
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5))
    story = http.get("/v1/studies/demo/events").json()
    told = [(event["kind"], event["trial_number"]) for event in story]
    assert told == [
        ("study.created", None),
        ("trial.suggested", 0),
        ("trial.claimed", 0),
        ("trial.measured", 0),
        ("trial.completed", 0),
    ]
    collected, after = [], 0
    while page := http.get("/v1/studies/demo/events", params={"after": after, "limit": 2}).json():
        collected += page
        after = page[-1]["id"]
    assert collected == story


def test_the_stream_continues_after_the_last_event_id(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    first = http.get("/v1/studies/demo/events").json()[0]["id"]
    received: list[dict[str, object]] = []
    with http.stream("GET", "/v1/studies/demo/events/stream", headers={"last-event-id": str(first)}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        while len(received) < 2:
            line = next(lines)
            if line.startswith("data: "):
                received.append(json.loads(line.removeprefix("data: ")))
                if len(received) == 1:
                    assert http.post("/v1/leases", json=claim_body()).status_code == 200
    assert [event["kind"] for event in received] == ["trial.suggested", "trial.claimed"]
    assert http.get("/v1/studies/nothing/events/stream").status_code == 404


def test_a_stream_ends_with_its_token(service: Service, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.v1.events.POLL_SECONDS", 0.02)
    service.create()
    with service.http("read") as reader, reader.stream("GET", "/v1/studies/demo/events/stream") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line == ": waiting")
        (mine,) = [token for token in http.get("/v1/tokens").json() if token["scopes"] == ["read"]]
        http.delete(f"/v1/tokens/{mine['id']}").raise_for_status()
        assert set(lines) <= {"", ": waiting"}, "it ends by itself"
        assert reader.get("/v1/studies").status_code == 401


def test_workers_are_listed_with_what_they_run(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body("w1")).json()
    http.post("/v1/leases", json=claim_body("w2", study="demo"))
    found = {worker["name"]: worker for worker in http.get("/v1/workers").json()}
    assert (found["w1"]["trial_id"], found["w2"]["trial_id"]) == (lease["trial_id"], None)
    assert (found["w2"]["study"], found["w2"]["alive"], found["w2"]["memory_bytes"]) == ("demo", True, 2**33)
