"""A study in a real database, and workers that take its trials."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from hpo.protocol import ClaimRequest, FinishRequest, Lease, Measurement, ReportRequest, WorkerInfo
from hpo.service import optimizer_process as process
from hpo.spec import parse_spec
from hpo.store import Database, lifecycle, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import TrialRecord, TrialState

SPEC: dict[str, Any] = {
    "name": "study",
    "objectives": [{"metric": "val_top1"}],
    "task": {"dataset": {"root": "/data/ucf101"}, "epochs": 3},
    "space": {
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
    },
    "optimizer": {"name": "tpe", "startup_trials": 3},
    "budget": {"trials": 20},
}


def create(database: Database, **sections: Any) -> StudyRow:
    """Return a new study, whole sections of its spec replaced."""
    with database.transaction() as connection:
        return studies.create(connection, parse_spec({**SPEC, **sections}), actor="test")


def records(database: Database, study: StudyRow) -> list[TrialRecord]:
    """Return the trials of a study."""
    with database.transaction() as connection:
        return trials.records(connection, study.id)


def waiting(database: Database, study: StudyRow) -> list[TrialRecord]:
    """Return the suggestions that are not claimed."""
    return [record for record in records(database, study) if record.state is TrialState.SUGGESTED]


def claim(database: Database, worker: str = "w0", memory_bytes: int = 2**33, study: str | None = None) -> Lease | None:
    """Return the lease of a trial that a worker claims, None if there is no trial for it."""
    info = WorkerInfo(name=worker, host="here", pid=1, device="cpu", memory_bytes=memory_bytes)
    with database.transaction() as connection:
        return lifecycle.claim(connection, ClaimRequest(worker=info, lease_id=uuid4(), study=study), lease_seconds=60)


def finish(database: Database, lease: Lease, value: float, **fields: Any) -> None:
    """Report one epoch and end the trial."""
    fence: dict[str, Any] = {"attempt": lease.attempt, "lease_id": lease.lease_id}
    metrics = {"val_top1": value}
    measured = Measurement(step=3, metrics=metrics, wall_seconds=1, gpu_seconds=1)
    outcome: dict[str, Any] = {"outcome": "completed", "metrics": metrics, **fields}
    with database.transaction() as connection:
        lifecycle.report(connection, lease.trial_id, ReportRequest(**fence, measurements=[measured]))
        lifecycle.finish(connection, lease.trial_id, FinishRequest(**fence, **outcome))


@contextmanager
def optimizing(database: Database, owner: str = "a", poll_seconds: float = 0.02) -> Iterator[threading.Event]:
    """Run the optimizer's loop in a thread while the block does; setting the event ends it."""
    stop = threading.Event()
    arguments = {"owner": owner, "stop": stop, "poll_seconds": poll_seconds}
    thread = threading.Thread(target=process.run, args=(database,), kwargs=arguments)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(timeout=60)
        assert not thread.is_alive()
