"""While a fleet is upgraded, releases meet: whichever side is older, no trial is lost.

`release_0_2_0.json` was recorded from real processes of release 0.2.0: the fields of its messages, all of which it
refuses to be more, and what its worker said when it completed a trial, was stopped by SIGTERM, and lost its training
process to SIGKILL.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from hpo.protocol import WorkerInfo
from hpo.store import trials
from hpo.trial import Fault, TrialRecord, TrialState
from workers.device.detection import cpu_device
from workers.lease.client import ApiClient
from workers.lease.worker import Worker, WorkerConfig

from ..api.service import Service
from ..faults.test_forty_trials import Trainings
from ..store.world import skip_backoff

OLD: dict[str, Any] = json.loads(Path(__file__).with_name("release_0_2_0.json").read_text(encoding="utf-8"))
NAMES = {"leases": "ClaimRequest", "reports": "ReportRequest", "finish": "FinishRequest", "release": "ReleaseRequest"}
FIELDS: dict[str, list[str]] = OLD["fields"]


def _records(service: Service, study_id: int) -> list[TrialRecord]:
    with service.database.transaction() as connection:
        return trials.records(connection, study_id)


def test_this_api_serves_a_worker_of_release_0_2_0(service: Service) -> None:
    study_id = service.create()
    service.suggest(study_id, 2)
    lease: dict[str, Any] = {}
    with service.http("worker") as http:
        for kind, status, body in OLD["said"]:
            path = "/v1/leases" if kind == "leases" else f"/v1/trials/{lease['trial_id']}/{kind}"
            fence = {} if kind == "leases" else {"attempt": lease["attempt"]}
            answer = http.post(path, json={**body, **fence})
            assert answer.status_code == status, (kind, answer.text)
            if kind == "leases":
                lease = answer.json()
                assert sorted(lease) == FIELDS["Lease"]
            elif kind == "reports":
                assert answer.json() == {"decision": "continue"}
    first, second = _records(service, study_id)
    assert (first.state, first.attempt, first.last_step) == (TrialState.COMPLETED, 1, 2)
    assert (second.state, second.attempt, second.last_step) == (TrialState.SUGGESTED, 2, 4)
    assert second.lost_on == ("old-worker",), "the SIGTERM cost nothing, and the SIGKILL one retry"
    skip_backoff(service.database, second.id)
    with service.http("worker") as http:
        claim = {**OLD["said"][0][2], "lease_id": "0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11"}
        again = http.post("/v1/leases", json=claim).raise_for_status().json()
    assert (again["trial_id"], again["attempt"], again["epochs_done"]) == (second.id, 3, 4)


class OldApi:
    """An API of release 0.2.0 that has these leases to give: it refuses fields and calls that it does not know."""

    def __init__(self, leases: list[dict[str, Any]]) -> None:
        self._leases = leases
        self.accepted: list[tuple[str, dict[str, Any]]] = []
        self.client = ApiClient("http://api/", "hpo_t", transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        kind = request.url.path.rsplit("/", 1)[-1]
        body = json.loads(request.content)
        if kind not in NAMES:
            return _problem(404)
        parts = [(NAMES[kind], body), *([("WorkerInfo", body["worker"])] if kind == "leases" else [])]
        parts += [("Measurement", measured) for measured in body.get("measurements", [])]
        if any(not set(part) <= set(FIELDS[name]) for name, part in parts):
            return _problem(422)
        self.accepted.append((kind, body))
        if kind == "leases":
            lease = {**self._leases.pop(0), "lease_id": body["lease_id"]}
            return httpx.Response(200, json={name: lease[name] for name in FIELDS["Lease"]})
        return httpx.Response(200, json={"decision": "continue"})


def _problem(status: int) -> httpx.Response:
    headers = {"content-type": "application/problem+json"}
    slug = "not-found" if status == 404 else "invalid-request"
    return httpx.Response(
        status, json={"type": f"/problems/{slug}", "status": status, "detail": "unknown"}, headers=headers
    )


def test_this_worker_serves_an_api_of_release_0_2_0(service: Service, tmp_path: Path) -> None:
    service.suggest(service.create(), 2)
    with service.http("worker") as http:
        leases = []
        for name in ("b", "c"):
            claim = {**OLD["said"][0][2], "lease_id": f"0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b1{name}"}
            leases.append(http.post("/v1/leases", json=claim).raise_for_status().json())
    api = OldApi(leases)
    info = WorkerInfo(name="new", host="h", pid=1, device="cpu", start_id="a7", gpus=2)
    device = cpu_device(threads=1)
    config = WorkerConfig(info=info, device=device, checkpoint_dir=tmp_path, cache_dir=tmp_path, max_trials=2)
    Worker(config, api.client, standby=Trainings(well=1, fault=Fault.STORAGE)).run()
    api.client.close()
    ends = [(kind, body) for kind, body in api.accepted if kind in ("finish", "release")]
    assert [kind for kind, _ in ends] == ["finish", "release"]
    assert ends[0][1]["outcome"] == "completed"
    assert (ends[1][1]["reason"], ends[1][1]["message"]) == ("crashed", "it failed")
    assert [body["lease_id"] for kind, body in api.accepted if kind == "leases"] == [
        body["lease_id"] for _, body in ends
    ]
