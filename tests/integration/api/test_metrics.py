"""`GET /metrics` against Prometheus' own parser and the answers of the other routes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from hpo.store import optimizers, studies

from .history import make_history
from .service import Service, claim_body, measured

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def _scrape(service: Service) -> Samples:
    with service.http("read") as http:
        answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_the_figures_are_those_of_the_other_routes(past_service: Service) -> None:
    samples = _scrape(past_service)
    with past_service.http("read") as http:
        study = http.get("/v1/studies/demo").json()
        fleet = http.get("/v1/workers").json()
    assert {state: _value(samples, "hpo_trials", study="demo", state=state) for state in study["trial_counts"]} == (
        study["trial_counts"]
    )
    assert _value(samples, "hpo_studies", state="active") == 1
    # The running trial holds its device between the two calls.
    used = _value(samples, "hpo_device_seconds_total", study="demo")
    assert used == pytest.approx(study["gpu_hours_spent"] * 3600, abs=20)
    assert _value(samples, "hpo_workers", state="training") == sum(
        row["alive"] and row["trial_id"] is not None for row in fleet
    )
    waiting = study["trial_counts"]["suggested"] + study["trial_counts"].get("paused", 0)
    assert _value(samples, "hpo_queue_length", study="demo") == waiting == 1
    assert _value(samples, "hpo_optimizer_lag_seconds", study="demo") == 0
    # Of ten trials one failed, two were stopped, one runs and one waits.
    assert _value(samples, "hpo_attempts_total", ended_as="failed", fault="") == 1
    assert _value(samples, "hpo_attempts_total", ended_as="stopped", fault="") == 2
    assert _value(samples, "hpo_attempts_total", ended_as="completed", fault="") == 5
    with past_service.database.transaction() as connection:
        begun, ended = connection.execute(text("SELECT count(*), count(ended_at) FROM attempt")).one()
    assert begun > ended
    assert _value(samples, "hpo_claims_total") == begun
    assert sum(value for (name, _), value in samples.items() if name == "hpo_attempts_total") == ended


def test_each_claim_that_gave_a_trial_is_counted(service: Service) -> None:
    service.suggest(service.create())
    before = _value(_scrape(service), "hpo_claims_total") or 0.0
    with service.http("worker") as http:
        answers = [http.post("/v1/leases", json=claim_body(name)) for name in ("w1", "w2")]
    assert ["trial_id" in answer.text for answer in answers] == [True, False]
    assert _value(_scrape(service), "hpo_claims_total") == before + 1


MONITORING = Path(__file__).resolve().parents[3] / "docker"


def _named_elsewhere() -> dict[str, set[str]]:
    """Return the figures that each file for Prometheus, Grafana and KEDA asks for."""
    board = json.loads((MONITORING / "monitoring" / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((MONITORING / "monitoring" / "alerts.yaml").read_text())
    scaled = yaml.safe_load_all((MONITORING / "k8s" / "autoscaling" / "scaled-object.yaml").read_text())
    asked = {
        "board": [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        + [variable["query"] for variable in board["templating"]["list"]],
        "alerts": [rule["expr"] for group in alerts["groups"] for rule in group["rules"]],
        "autoscaler": [next(scaled)["spec"]["triggers"][0]["metadata"]["valueLocation"]],
    }
    return {name: set(re.findall(r"\bhpo_\w+", " ".join(found))) for name, found in asked.items()}


def test_what_the_dashboard_the_alerts_and_the_autoscaler_ask_for_exists(past_service: Service) -> None:
    with past_service.database.transaction() as connection:
        optimizers.look(connection, "node-1:7", 600.0)
    exposed = {name for name, _ in _scrape(past_service)}
    named = _named_elsewhere()
    for file, names in named.items():
        assert names, file
        assert names <= exposed, file
    # Nothing that is measured stays unseen, but the boundaries that Prometheus needs itself.
    unseen = {name for name in exposed - named["board"] - named["alerts"] if not name.endswith("_created")}
    assert unseen <= {"hpo_studies"}


def test_an_empty_queue_of_a_study_with_room_is_the_lag_of_its_optimizer(service: Service) -> None:
    service.complete(service.create(), 2)
    first, second = (_value(_scrape(service), "hpo_optimizer_lag_seconds", study="demo") for _ in range(2))
    assert 0 < (first or 0) < (second or 0) < 60


def test_the_time_of_decisions_is_counted(service: Service) -> None:
    before = _scrape(service)
    service.suggest(service.create())
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).json()
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.5)).raise_for_status()
    samples = _scrape(service)
    counts, sums = (
        [_value(found, f"hpo_decision_seconds_{what}") or 0 for found in (before, samples)] for what in ("count", "sum")
    )
    assert counts[1] == counts[0] + 1
    assert 0 < sums[1] - sums[0] < 30


def test_what_is_left_follows_the_budget_as_long_as_the_study_is_active(service: Service) -> None:
    make_history(service)
    with service.http("admin") as http:
        budget = http.get("/v1/studies/demo").json()["spec"]["budget"]["trials"]
        samples = _scrape(service)
        assert (
            _value(samples, "hpo_trials_left", study="demo", task_kind="video", gpus="1", nodes="1")
            == budget - 8
            == _value(samples, "hpo_workers_wanted")
        )
        http.post("/v1/studies/demo/pause").raise_for_status()
        assert _value(_scrape(service), "hpo_trials_left", study="demo", task_kind="video", gpus="1", nodes="1") is None
        assert _value(_scrape(service), "hpo_studies", state="paused") == 1


def test_a_service_without_studies_has_figures(empty_service: Service) -> None:
    samples = _scrape(empty_service)
    assert _value(samples, "hpo_studies", state="active") == 0
    assert _value(samples, "hpo_workers", state="idle") == 0


def test_the_optimizers_that_live_are_counted_and_shown(service: Service) -> None:
    study_id = service.create()
    with service.database.transaction() as connection:
        optimizers.look(connection, "node-1:7", 600.0, steps=12, busy_seconds=3.5)
        optimizers.look(connection, "node-2:7", -1.0)
        assert studies.acquire_generator(connection, study_id, "node-1:7", 600.0) is not None
    samples = _scrape(service)
    assert _value(samples, "hpo_optimizers") == 1
    assert _value(samples, "hpo_optimizer_studies", optimizer="node-1:7") == 1
    assert _value(samples, "hpo_optimizer_steps_total", optimizer="node-1:7") == 12
    assert _value(samples, "hpo_optimizer_busy_seconds_total", optimizer="node-1:7") == 3.5
    with service.http("read") as http:
        page = http.get("/workers").text
    assert "node-1:7" in page
    assert "node-2:7" not in page, "its row has expired"
