"""A study of 40 trials on three workers, of which one is sick from its third trial on, equals one on two.

The service, the lease code of the workers and their calls over HTTP are real; only the training processes are not: each
delivers at once what its configuration is worth.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hpo.optimizer.bayes.runnability import evidence_of
from hpo.protocol import Measurement, WorkerInfo
from hpo.store import events, lifecycle, studies, trials, workers
from hpo.store.studies import StudyRow
from hpo.trial import MACHINE_FAULTS, Fault, TrialRecord, TrialState
from tests.unit.workers.lease.fakes import FakeChild
from workers.device.detection import cpu_device
from workers.lease.client import ApiClient
from workers.lease.worker import Worker, WorkerConfig
from workers.process.child import Child, ProcessExited, StandbyProcess
from workers.process.messages import EpochDone, Event, Finished, Job, Started, WorkerFault

from ..api.service import Service
from ..workers.bench import wait_until

TRIALS = 40
WELL_TRIALS = 2
"""How many trials the sick worker trains before it is sick."""
Deliver = Callable[[Event | ProcessExited], None]


def worth(config: dict[str, Any]) -> float:
    """Return the accuracy of a configuration, in a closed form."""
    lr, dropout = float(config["lr"]), float(config["dropout"])
    return 0.9 - 0.05 * (math.log10(lr) + 2) ** 2 - 0.2 * (dropout - 0.3) ** 2


class Training(FakeChild):
    """A training of one epoch, or one that ends with a fault."""

    def __init__(self, fault: Fault | None) -> None:
        super().__init__()
        self._fault = fault

    def assign(self, job: Job, log: Path, deliver: Deliver) -> None:
        if self._fault is not None:
            deliver(WorkerFault(fault=self._fault, message="it failed"))
            return
        metrics = {"val_top1": worth(job.config), "val_loss": 1.0, "epoch_seconds": 1.0}
        measured = Measurement(step=1, metrics=metrics, wall_seconds=1.0, gpu_seconds=1.0)
        deliver(Started(epoch=0, batch=0, epochs=1, checkpoint=None, measurements=[]))
        deliver(EpochDone(measurement=measured, checkpoint="/c/e1.pt", peak_memory_bytes=1000))
        deliver(Finished(outcome="completed", metrics=metrics, checkpoint="/c/final.pt"))


class Trainings(StandbyProcess):
    """Provides trainings, all with a fault once `well` of them were taken."""

    def __init__(
        self,
        *,
        well: int | None = None,
        fault: Fault = Fault.DEVICE,
        may_fail_again: Callable[[], bool] = lambda: True,
    ) -> None:
        self._left = well
        self._fault = fault
        self._may_fail_again = may_fail_again
        self.failed = 0

    def prepare(self) -> None:
        pass

    def take(self) -> Child:
        if self._left is None or self._left > 0:
            self._left = None if self._left is None else self._left - 1
            return Training(None)
        if self.failed:
            wait_until(self._may_fail_again, "the others to train without the fault")
        self.failed += 1
        return Training(self._fault)

    def close(self) -> None:
        pass


@contextmanager
def at_work(service: Service, folder: Path, fleet: dict[str, Trainings]) -> Iterator[None]:
    """Let workers of these names and trainings work during the block."""
    with ApiClient(service.url, service.tokens["worker"]) as client:
        made = [
            Worker(
                WorkerConfig(
                    info=WorkerInfo(name=name, host=name, pid=1, device="cpu"),
                    device=cpu_device(threads=1),
                    checkpoint_dir=folder,
                    cache_dir=folder,
                ),
                client,
                standby=trainings,
            )
            for name, trainings in fleet.items()
        ]
        threads = [threading.Thread(target=worker.run) for worker in made]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for worker in made:
                worker.on_signal(signal.SIGTERM, None)
            for thread in threads:
                thread.join()


def make_study(service: Service, name: str, *, retries: int) -> StudyRow:
    """Return a new study with all its suggestions."""
    points = [{"lr": 10 ** (-4 + 3 * (i + 0.5) / TRIALS), "dropout": 0.8 * (i * 0.618 % 1)} for i in range(TRIALS)]
    id_ = service.create(name=name, budget={"trials": TRIALS}, retry={"attempts": retries})
    service.suggest(id_, points=points)
    with service.database.transaction() as connection:
        return studies.get_by_id(connection, id_)


def records(service: Service, study: StudyRow) -> Sequence[TrialRecord]:
    """Return the trials of a study."""
    with service.database.transaction() as connection:
        return trials.records(connection, study.id)


def have_others_trained(service: Service, study: StudyRow) -> bool:
    """Return whether anything was measured since the first fault of the sick worker, or nothing is left to train."""
    query = text("""
        SELECT EXISTS (SELECT FROM measurement
                       WHERE created_at > (SELECT min(ended_at) FROM attempt WHERE worker = 'sick' AND fault IS NOT NULL
                                             AND trial_id IN (SELECT id FROM trial WHERE study_id = :id)))
            OR NOT EXISTS (SELECT FROM trial
                           WHERE study_id = :id AND finished_at IS NULL AND lease_worker IS DISTINCT FROM 'sick')
    """)
    with service.database.transaction() as connection:
        return bool(connection.execute(query, {"id": study.id}).scalar_one())


def outcome(record: TrialRecord) -> tuple[Any, ...]:
    """Return what of a trial does not depend on who trained it."""
    return record.number, record.state, record.params, record.metrics, record.failure_kind, record.lost_on


@pytest.mark.parametrize("fault", [Fault.DEVICE, Fault.STORAGE, Fault.FILES, Fault.PROCESS, Fault.KERNEL])
def test_a_worker_that_falls_sick_costs_nothing(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_SECONDS", 0.0)
    is_known = fault in MACHINE_FAULTS
    retries = 0 if is_known else 1
    compared = make_study(service, "two", retries=retries)
    with at_work(service, tmp_path, {"a": Trainings(), "b": Trainings()}):
        wait_until(lambda: all(record.state.is_terminal for record in records(service, compared)))

    study = make_study(service, "three", retries=retries)
    # A fault that a configuration may cause counts only while others train without it, however busy the machine is.
    sick = Trainings(well=WELL_TRIALS, fault=fault, may_fail_again=lambda: have_others_trained(service, study))
    fleet = {"a": Trainings(), "sick": sick, "b": Trainings()}
    with at_work(service, tmp_path, fleet):
        wait_until(lambda: all(record.state.is_terminal for record in records(service, study)))

    found = records(service, study)
    assert all(record.state is TrialState.COMPLETED for record in found)
    lacks_files = fault is Fault.FILES
    assert sick.failed == (1 if lacks_files else 2), "no trial of this study after them"
    assert sum(record.attempt for record in found) == TRIALS + sick.failed
    if is_known:
        assert [outcome(record) for record in found] == [outcome(record) for record in records(service, compared)]
        assert len(evidence_of(found)) == TRIALS, "the optimizer learns nothing of it"
    else:
        lost = [worker for record in found for worker in record.lost_on]
        assert lost == ["sick"] * sick.failed, "it may be the configuration: evidence against the machine or the trial"
    with service.database.transaction() as connection:
        (seen,) = [row for row in workers.list_all(connection) if row.name == "sick"]
        said = [each.kind for each in events.list_since(connection, study.id) if each.kind.startswith("worker.")]
    assert (seen.fault, seen.quarantined_at is not None) == ((None, False) if lacks_files else (fault, True))
    assert said == ([] if lacks_files else ["worker.quarantined"])
