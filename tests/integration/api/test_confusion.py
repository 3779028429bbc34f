"""Confusion matrices of trials: what workers send is kept, the newest of each trial, and shown."""

from __future__ import annotations

from typing import Any

import httpx

from .service import Service, claim_body, fence, finished, measured

PATH = "/v1/studies/demo/trials/0/confusion"


def _confusion(step: int, right: int) -> dict[str, Any]:
    return {"step": step, "class_names": ["jump", "run"], "videos": [5, 5], "cells": [[0, 0, right], [1, 0, 5]]}


def test_the_newest_confusion_matrix_of_a_trial_is_shown(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
    reports = f"/v1/trials/{lease['trial_id']}/reports"
    missing = http.get(PATH)
    assert (missing.status_code, "no confusion matrix" in missing.text) == (404, True)
    for step, right in ((2, 3), (1, 1)):  # the second comes late
        body = {**measured(lease, step, 0.5), "confusion": _confusion(step, right)}
        assert http.post(reports, json=body).status_code == 200
    http.post(reports, json=measured(lease, 3, 0.6)).raise_for_status()  # an epoch without a validation of its own
    assert http.get(PATH).json() == _confusion(2, 3)
    wrong = {**measured(lease, 4, 0.5), "confusion": {**_confusion(4, 5), "videos": [1, 1]}}
    assert http.post(reports, json=wrong).status_code == 422
    stale = {**measured(lease, 4, 0.5), "confusion": _confusion(4, 5), "attempt": 7}
    assert http.post(reports, json=stale).status_code == 409
    http.post(f"/v1/trials/{lease['trial_id']}/release", json={**fence(lease), "reason": "drained"}).raise_for_status()
    lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
    again = {**measured(lease, 1, 0.5), "confusion": _confusion(1, 2)}  # begun anew without its checkpoint
    http.post(f"/v1/trials/{lease['trial_id']}/reports", json=again).raise_for_status()
    assert http.get(PATH).json() == _confusion(1, 2)
    body = finished(lease, 0.5, confusion=_confusion(3, 5))
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()
    assert http.get(PATH).json() == _confusion(3, 5)
