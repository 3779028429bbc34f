"""What is asked of the API about trials that this program runs itself: claim, report, finish, give back.

The messages are those of `hpo.protocol`, as plain data: a program that asks for trials starts without pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import unquote
from uuid import UUID

import httpx

from .replies import Value
from .steps import Call

QUARANTINE_HEADER = "Worker-Quarantine"
"""As in `hpo.protocol`."""


class Lease(TypedDict):
    """A trial to run."""

    study: str
    trial_id: int
    number: int
    attempt: int
    lease_id: str
    params: dict[str, Value]
    config: dict[str, Any]
    checkpoint: str | None
    epochs_done: int
    lease_seconds: float
    heartbeat_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTrial:
    """There is no trial at the moment; `quarantine` says why this asker gets none at all."""

    quarantine: str | None


def claim(
    study: str, *, kind: str, worker: Mapping[str, Any], lease_id: UUID, wait_seconds: float
) -> Call[Lease | NoTrial]:
    """Claim a trial of a study; the answer that there is none comes after `wait_seconds`, at most a few."""
    body = {"study": study, "task_kinds": [kind], "worker": dict(worker), "lease_id": str(lease_id)}
    headers = {"Prefer": f"wait={wait_seconds:.0f}"} if wait_seconds >= 1 else {}
    return Call("POST", "/v1/leases", _lease_in, json=body, headers=headers)


def report(lease: Lease, *, measurements: Sequence[Mapping[str, Any]] = (), checkpoint: str | None = None) -> Call[str]:
    """Keep a lease, deliver what was measured, and return the decision about the trial."""
    body = {**_fence(lease), "measurements": list(measurements), "checkpoint": checkpoint}
    path = f"/v1/trials/{lease['trial_id']}/reports"
    return Call("POST", path, lambda answer: str(answer.json()["decision"]), json=body)


def finish(lease: Lease, **result: Any) -> Call[None]:
    """End a trial with its result or its failure: the fields of `hpo.protocol.FinishRequest`."""
    return Call("POST", f"/v1/trials/{lease['trial_id']}/finish", lambda _: None, json={**_fence(lease), **result})


def release(lease: Lease, reason: str, *, checkpoint: str | None, message: str | None = None) -> Call[None]:
    """Give a trial back unfinished; `reason` is `drained`, `paused` or `crashed`."""
    body = {**_fence(lease), "reason": reason, "checkpoint": checkpoint, "message": message}
    return Call("POST", f"/v1/trials/{lease['trial_id']}/release", lambda _: None, json=body)


def _fence(lease: Lease) -> dict[str, Any]:
    return {"attempt": lease["attempt"], "lease_id": lease["lease_id"]}


def _lease_in(answer: httpx.Response) -> Lease | NoTrial:
    if answer.status_code != httpx.codes.NO_CONTENT:
        found: Lease = answer.json()
        return found
    reason = answer.headers.get(QUARANTINE_HEADER)
    return NoTrial(quarantine=None if reason is None else unquote(reason))
