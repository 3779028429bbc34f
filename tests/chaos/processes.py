"""The processes that chaos kills: the API, the optimizer, and workers that train nothing but speak as real ones do."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import uvicorn

from api.app import create_app
from api.config import ApiConfig
from hpo.errors import StaleLeaseError
from hpo.protocol import (
    ClaimRequest,
    FinishRequest,
    Lease,
    Measurement,
    ReleaseRequest,
    ReportReply,
    ReportRequest,
    WorkerInfo,
)
from hpo.service import optimizer_process
from hpo.store import Database, lifecycle
from hpo.store.statements import STATEMENTS
from hpo.trial import Decision
from workers.errors import ApiRefusedError, ApiUnavailableError
from workers.lease.client import ApiClient

KEY = b"a key for chaos, at least 16 bytes"
LEASE_SECONDS = 1.0
EPOCHS = 8
Mutant = tuple[str, str, str]
"""The name of a statement of the lifecycle, a part of it, and what stands in its place."""


def serve(url: str, port: int, mutant: Mutant | None) -> None:
    """Run the API with leases and waits that are short."""
    lifecycle.BACKOFF_SECONDS, lifecycle.BACKOFF_LIMIT_SECONDS = 0.2, 0.5  # type: ignore[misc]  # final elsewhere
    if mutant is not None:
        name, original, replacement = mutant
        assert original in STATEMENTS[name], "the statement has changed; write the mutant anew"
        STATEMENTS[name] = STATEMENTS[name].replace(original, replacement)
    config = ApiConfig(key=KEY, lease_seconds=LEASE_SECONDS, upkeep_seconds=0.3, fallback_seconds=1.0, dashboard=False)
    uvicorn.run(create_app(Database(url), config), port=port, log_level="critical", access_log=False, ws="none")


def optimize(url: str) -> None:
    """Run the optimizer."""
    optimizer_process.run(Database(url), owner=f"chaos:{os.getpid()}", stop=threading.Event(), poll_seconds=0.1)


def work(url: str, token: str, log: Path, seed: int, task_kind: str) -> None:
    """Claim and train trials of a kind until killed.

    What was sent and what was acknowledged is in the log, in that order.
    """
    _Worker(ApiClient(url, token), log, seed, task_kind).run()


class _Worker:
    def __init__(self, client: ApiClient, log: Path, seed: int, task_kind: str) -> None:
        self._client = client
        self._task_kind = task_kind
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._info = WorkerInfo(name=f"{log.stem}-{os.getpid()}", host="chaos", pid=os.getpid(), device="cpu")

    def run(self) -> None:
        lease_id = uuid4()
        while True:
            self._note("claiming", lease_id)
            try:
                request = ClaimRequest(worker=self._info, lease_id=lease_id, task_kinds=[self._task_kind])
                reply = self._client.claim(request)
            except (ApiUnavailableError, ApiRefusedError):
                time.sleep(0.1)
                continue
            except StaleLeaseError:
                self._note("stale", lease_id)
                lease_id = uuid4()
                continue
            if not isinstance(reply, Lease):
                time.sleep(0.1)
                continue
            self._note("claimed", lease_id, trial=reply.trial_id, attempt=reply.attempt)
            try:
                self._train(reply)
            except StaleLeaseError:
                self._note("lost", lease_id, trial=reply.trial_id, attempt=reply.attempt)
            lease_id = uuid4()

    def _train(self, lease: Lease) -> None:
        for step in range(lease.epochs_done + 1, EPOCHS + 1):
            time.sleep(self._random.uniform(0.0, 0.4))
            decision = self._report(lease, step)
            if decision is not Decision.CONTINUE or self._random.random() < 0.04:
                self._give_back(lease, "paused" if decision is Decision.PAUSE else "drained")
                return
        # Long enough that a worker which was frozen here wakes up while its successor does the same.
        for _ in range(self._random.randint(2, 8)):
            time.sleep(0.3 * LEASE_SECONDS)
            heartbeat = ReportRequest(attempt=lease.attempt, lease_id=lease.lease_id)
            self._insist(lambda request=heartbeat: self._client.report(lease.trial_id, request))
        time.sleep(0.8 * LEASE_SECONDS)  # frozen here, its result is the first that it says as a zombie
        value = self._random.random()
        about = {"trial": lease.trial_id, "attempt": lease.attempt, "value": value}
        self._note("finishing", lease.lease_id, **about)
        fence = {"attempt": lease.attempt, "lease_id": lease.lease_id}
        result = FinishRequest.model_validate({**fence, "outcome": "completed", "metrics": {"val_top1": value}})
        self._insist(lambda: self._client.finish(lease.trial_id, result))
        self._note("finished", lease.lease_id, **about)

    def _report(self, lease: Lease, step: int) -> Decision:
        value = self._random.random()
        about = {"trial": lease.trial_id, "attempt": lease.attempt, "step": step, "value": value}
        self._note("reporting", lease.lease_id, **about)
        sent = Measurement(step=step, metrics={"val_top1": value}, wall_seconds=1, gpu_seconds=1)
        request = ReportRequest(attempt=lease.attempt, lease_id=lease.lease_id, measurements=[sent])
        reply: ReportReply = self._insist(lambda: self._client.report(lease.trial_id, request))
        self._note("reported", lease.lease_id, **about)
        return reply.decision

    def _give_back(self, lease: Lease, reason: Literal["paused", "drained"]) -> None:
        request = ReleaseRequest(attempt=lease.attempt, lease_id=lease.lease_id, reason=reason)
        self._insist(lambda: self._client.release(lease.trial_id, request))

    def _insist(self, call: Any) -> Any:
        while True:
            try:
                return call()
            except (ApiUnavailableError, ApiRefusedError):
                time.sleep(0.1)

    def _note(self, what: str, lease_id: UUID, **about: Any) -> None:
        os.write(
            self._log,
            (json.dumps({"what": what, "lease": str(lease_id), "at": time.monotonic(), **about}) + "\n").encode(),
        )
