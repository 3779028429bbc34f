"""What a worker sends is bounded: each body here is refused in a sentence, and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from .service import Service, claim_body, fence, measured

LONG = "x" * 100_000
DIGITS = "9" * 5000


def _measurement(**changes: Any) -> dict[str, Any]:
    one = {"step": 1, "metrics": {"val_top1": 0.5}, "wall_seconds": 1.0, "gpu_seconds": 1.0}
    return {"measurements": [{**one, **changes}]}


END = {"outcome": "completed", "metrics": {"val_top1": 0.5}}
DRAINED = {"reason": "drained"}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("reports", _measurement(metrics={LONG: 0.5}), "at most 100 characters"),
    ("reports", _measurement(metrics={f"m{place}": 0.5 for place in range(101)}), "at most 100 items"),
    ("reports", _measurement(metrics={"val_top1": 90}), "val_top1 is 90, but it is a share, from 0 to 1"),
    ("reports", _measurement(metrics={"val_top1": -0.1}), "val_top1 is -0.1, but it is a share, from 0 to 1"),
    ("reports", _measurement(metrics={"val_loss": 1e300}), "it must be from -1e+100 to 1e+100"),
    ("reports", _measurement(metrics={"val_loss": -1e300}), "-1e+300 is not a metric"),
    ("reports", _measurement(step=11), "epoch 11 was reported, but trials of this study have 10"),
    ("reports", _measurement(gpu_seconds=1e308), "less than or equal to 31622400"),
    ("reports", _measurement(wall_seconds=1e308), "less than or equal to 31622400"),
    ("reports", {"measurements": _measurement()["measurements"] * 10_001}, "at most 10000 items"),
    ("reports", {"checkpoint": LONG}, "at most 4096 characters"),
    ("finish", {**END, "metrics": {"val_top1": 1.5}}, "val_top1 is 1.5, but it is a share, from 0 to 1"),
    ("finish", {**END, "environment": {"packages": LONG}}, "the environment has more than 64 KiB as JSON"),
    ("finish", {**END, "dataset_version": LONG}, "at most 200 characters"),
    ("finish", {**END, "checkpoint": LONG}, "at most 4096 characters"),
    ("release", {**DRAINED, "message": LONG}, "at most 20000 characters"),
    ("release", {**DRAINED, "checkpoint": LONG}, "at most 4096 characters"),
]


@pytest.fixture
def lease(service: Service, http: httpx.Client) -> dict[str, Any]:
    """The lease on the one trial of a study of ten epochs."""
    service.suggest(service.create())
    found: dict[str, Any] = http.post("/v1/leases", json=claim_body()).json()
    assert found["task"]["epochs"] == 10
    return found


@pytest.mark.parametrize(("call", "body", "sentence"), REFUSED)
def test_what_no_trial_sends_is_refused(
    http: httpx.Client, lease: dict[str, Any], call: str, body: dict[str, Any], sentence: str
) -> None:
    path = f"/v1/trials/{lease['trial_id']}"
    before = http.get(path).json()
    answer = http.post(f"{path}/{call}", json={**fence(lease), **body})
    assert answer.status_code == 422, answer.text
    assert sentence in answer.json()["detail"]
    assert len(answer.content) < 20_000
    assert http.get(path).json() == before


@pytest.mark.parametrize("field", ["name", "host", "device", "gpu_name", "version"])
def test_a_worker_has_a_short_name_and_place(http: httpx.Client, field: str) -> None:
    body = claim_body()
    body["worker"][field] = LONG
    answer = http.post("/v1/leases", json=body)
    assert answer.status_code == 422
    assert f"worker.{field}: " in answer.json()["detail"]
    assert http.get("/v1/workers").json() == []


@pytest.mark.parametrize("place", ["step", "gpu_seconds", "metric", "attempt", "environment"])
def test_a_number_of_thousands_of_digits_is_refused(http: httpx.Client, lease: dict[str, Any], place: str) -> None:
    """Python reads no integer of more than 4,300 digits, and floating point none of more than 308."""
    changes: dict[str, Any] = {"step": {"step": 7777}, "gpu_seconds": {"gpu_seconds": 7777}}
    body: dict[str, Any] = {**fence(lease), **_measurement(**changes.get(place, {}))}
    if place == "metric":
        body["measurements"][0]["metrics"]["val_loss"] = 7777
    elif place == "attempt":
        body["attempt"] = 7777
    elif place == "environment":
        body = {**fence(lease), **END, "environment": {"seed": 7777}}
    call = "finish" if place == "environment" else "reports"
    content = json.dumps(body).replace("7777", DIGITS)
    headers = {"content-type": "application/json"}
    answer = http.post(f"/v1/trials/{lease['trial_id']}/{call}", content=content, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert len(answer.content) < 5000


def test_an_answer_names_at_most_twenty_problems(http: httpx.Client, lease: dict[str, Any]) -> None:
    body = {**fence(lease), **{f"field{place}": 1 for place in range(22_000)}}
    answer = http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20
    assert answer.json()["detail"].endswith("; and 21980 more")
    spec = {f"field{place}": 1 for place in range(5000)}
    answer = http.post("/v1/studies", json=spec)
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 20)
    assert len(answer.content) < 20_000


def test_what_a_trial_does_send_is_taken(http: httpx.Client, lease: dict[str, Any]) -> None:
    path = f"/v1/trials/{lease['trial_id']}"
    for step, value in ((1, 0.0), (10, 1.0)):
        assert http.post(f"{path}/reports", json=measured(lease, step, value, val_loss=3.4e38)).is_success
