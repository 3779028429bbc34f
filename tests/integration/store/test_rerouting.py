"""A trial that did not fit into the memory of its worker waits for a larger one, where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.errors import StaleLeaseError
from hpo.protocol import Lease
from hpo.store import Database, events, lifecycle, waiting, workers
from hpo.store.studies import StudyRow
from hpo.trial import FailureKind, TrialState

from .world import (
    claim,
    expire,
    finish,
    make_study,
    must_claim,
    reap,
    record,
    release,
    report,
    run,
    scalar,
    study_row,
    suggest,
    worker,
)

GIB = 2**30
QUARANTINE = """
UPDATE worker
SET faults = 2, faulty_since = last_seen, faulted_at = last_seen, fault = 'device', fault_message = 'lost',
    quarantined_at = last_seen, quarantined_until = last_seen
WHERE name = 'large'
"""


def _meet(database: Database, name: str, gib: int, *, study: str | None = None, gpu_name: str | None = None) -> None:
    """Have a worker ask for a trial that there is not."""
    info = worker(name, memory_bytes=gib * GIB).model_copy(update={"gpu_name": gpu_name})
    with database.transaction() as connection:
        workers.seen(connection, info, study=study)


def _out_of_memory(database: Database, lease: Any) -> Any:
    return finish(database, lease, "failed", failure_kind="oom", failure_message="did not fit: one clip\nmore")


def test_a_larger_worker_gets_it_and_a_smaller_one_does_not(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    _meet(database, "large", 48)
    lease = must_claim(database, name="small", memory_bytes=24 * GIB)
    found = _out_of_memory(database, lease)
    assert (found.state, found.failure_kind, found.attempt) == (TrialState.SUGGESTED, None, 1)
    for gib in (16, 24):
        assert claim(database, name=f"another-{gib}", memory_bytes=gib * GIB) is None
    again = must_claim(database, name="large", memory_bytes=48 * GIB)
    assert (again.trial_id, again.attempt) == (lease.trial_id, 2)
    with pytest.raises(StaleLeaseError):  # said again: it is not this worker's any more
        _out_of_memory(database, lease)
    with database.transaction() as connection:
        assert scalar(connection, "SELECT retries FROM trial") == 0
        assert scalar(connection, "SELECT ended_as FROM attempt WHERE attempt = 1") == "failed"
        (event,) = [one for one in events.list_since(connection, study.id) if one.kind == "trial.released"]
    assert event.detail == {
        "attempt": 1,
        "reason": "oom",
        "state": "suggested",
        "retries": 0,
        "required_memory_bytes": 24 * GIB + 1,
        "message": "did not fit: one clip",
    }
    last = _out_of_memory(database, again)
    assert (last.state, last.failure_kind) == (TrialState.FAILED, FailureKind.OOM)


@pytest.mark.parametrize(
    "unfit",
    [
        {"gib": 24},
        {"gib": 48, "study": "another"},
        {"gib": 48, "gpu_name": "a GPU, where this worker computes on a CPU"},
        {"gib": 48, "change": "UPDATE worker SET last_seen = last_seen - interval '61 s' WHERE name = 'large'"},
        {"gib": 48, "change": QUARANTINE},
    ],
)
def test_without_one_that_would_take_it_the_trial_fails(database: Database, unfit: dict[str, Any]) -> None:
    study = make_study(database)
    suggest(database, study)
    change = unfit.pop("change", None)
    _meet(database, "large", **unfit)
    lease = must_claim(database, name="small", memory_bytes=24 * GIB)
    if change is not None:
        run(database, change)
    found = _out_of_memory(database, lease)
    assert (found.state, found.failure_kind) == (TrialState.FAILED, FailureKind.OOM)


def test_another_failure_is_final_and_a_cancelled_trial_stops(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    _meet(database, "large", 48)
    first = must_claim(database, name="small", memory_bytes=24 * GIB)
    assert finish(database, first, "failed", failure_kind="error").state is TrialState.FAILED
    second = must_claim(database, name="small", memory_bytes=24 * GIB)
    run(database, "UPDATE trial SET cancel_requested = true WHERE id = :id", id=second.trial_id)
    assert _out_of_memory(database, second).state is TrialState.STOPPED


def test_a_worker_whose_lease_has_expired_says_it_late(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    _meet(database, "large", 48)
    lease = must_claim(database, name="small", memory_bytes=24 * GIB)
    expire(database, lease.trial_id)
    assert reap(database) == [lease.trial_id]
    assert _out_of_memory(database, lease).state is TrialState.SUGGESTED
    assert must_claim(database, name="large", memory_bytes=48 * GIB).trial_id == lease.trial_id
    assert record(database, lease.trial_id).attempt == 2


# ---------------------------------------------------------------- when the larger worker leaves


def _left(database: Database, seconds: int) -> None:
    """Let the worker "large" be silent for so long."""
    run(
        database,
        "UPDATE worker SET last_seen = clock_timestamp() - make_interval(secs => :s) WHERE name = 'large'",
        s=seconds,
    )


def _given_up(database: Database) -> list[int]:
    with database.transaction() as connection:
        return lifecycle.give_up(connection)


def _kinds(database: Database, study: StudyRow) -> list[str]:
    with database.transaction() as connection:
        return [each.kind for each in events.list_since(connection, study.id)][-2:]


def _reason(database: Database, trial_id: int) -> str | None:
    with database.transaction() as connection:
        return waiting.reason(connection, trial_id)


@pytest.fixture
def rerouted(database: Database) -> Lease:
    """A trial of which a single clip did not fit into 24 GiB, while a worker with 48 GiB was there."""
    suggest(database, make_study(database))
    _meet(database, "large", 48)
    lease = must_claim(database, name="small", memory_bytes=24 * GIB)
    _out_of_memory(database, lease)
    return lease


def test_what_fits_into_no_worker_fails_an_hour_after_the_larger_one_has_left(
    database: Database, rerouted: Lease
) -> None:
    study, trial_id = study_row(database), rerouted.trial_id
    assert _reason(database, trial_id) == (
        "a single clip did not fit into the 24.0 GiB of small: it waits for a worker with more memory, and one is there"
    )
    assert _given_up(database) == []
    _left(database, 3601)
    assert _given_up(database) == [], "nobody was told, and after an outage the worker may come back in a moment"
    assert _kinds(database, study) == ["trial.released", "trial.waits"]
    assert _reason(database, trial_id) == (
        "a single clip did not fit into the 24.0 GiB of small: it waits for a worker with more memory; if none comes "
        "within 60 minutes, it fails with oom"
    )
    assert claim(database, name="small", memory_bytes=24 * GIB) is None, "as much memory is of no use"
    for minutes, given_up in ((59, []), (2, [trial_id]), (60, [])):
        run(database, "UPDATE event SET created_at = created_at - make_interval(mins => :m)", m=minutes)
        run(database, "UPDATE attempt SET claimed_at = '2000-01-01', seen_at = '2000-01-01', ended_at = '2000-01-02'")
        assert _given_up(database) == given_up
    found = record(database, trial_id)
    assert (found.state, found.failure_kind, found.failure_message) == (
        TrialState.FAILED,
        FailureKind.OOM,
        "a single clip did not fit into the 24 GiB of small, and for 60 minutes there was no worker with more memory. "
        "When there is one, `hpo study enqueue study --again 0` trains it again",
    )
    assert _kinds(database, study) == ["trial.waits", "trial.failed"]


def test_a_larger_worker_that_comes_back_gets_it(database: Database, rerouted: Lease) -> None:
    _left(database, 3601)
    assert _given_up(database) == []
    run(database, "UPDATE event SET created_at = created_at - interval '2 h'")
    run(database, "UPDATE attempt SET claimed_at = '2000-01-01', seen_at = '2000-01-01', ended_at = '2000-01-02'")
    _left(database, 30)
    assert _given_up(database) == []
    _left(database, 600)
    assert _given_up(database) == [], "it was here within the hour"
    assert must_claim(database, name="another", memory_bytes=25 * GIB).trial_id == rerouted.trial_id


# ---------------------------------------------------------------- a trial that took more memory than there is


@pytest.mark.parametrize(
    ("change", "is_given"),
    [
        (None, False),
        ("UPDATE worker SET last_seen = clock_timestamp() - interval '599 s' WHERE name = 'large'", False),
        ("UPDATE worker SET last_seen = clock_timestamp() - interval '601 s' WHERE name = 'large'", True),
        ("UPDATE worker SET study = 'another' WHERE name = 'large'", True),
        ("UPDATE worker SET memory_bytes = 17179869184 WHERE name = 'large'", True),
        (QUARANTINE, True),
    ],
)
def test_a_smaller_worker_gets_what_was_begun_when_none_as_large_is_there(
    database: Database, change: str | None, is_given: bool
) -> None:
    """Its batches are computed in smaller parts there."""
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database, name="large", memory_bytes=48 * GIB)
    report(database, lease, peak_memory_bytes=40 * GIB)
    release(database, lease, "drained")
    if change is not None:
        run(database, change)
    assert (claim(database, name="small", memory_bytes=24 * GIB) is not None) is is_given
    reason = _reason(database, lease.trial_id)
    assert (reason is not None) is (change is None or "599" in change)
    if reason is not None:
        assert reason == (
            "it needs about 40.0 GiB and waits for a worker with as much memory; if none is there for 10 minutes, a "
            "smaller one computes its batches in parts"
        )


def test_what_a_smaller_worker_can_hold_goes_before_what_it_cannot(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    for gib in (40, 20):
        lease = must_claim(database, name=f"w{gib}", memory_bytes=48 * GIB)
        report(database, lease, peak_memory_bytes=gib * GIB)
    run(
        database,
        "UPDATE trial SET state = 'suggested', lease_id = NULL, lease_expires_at = NULL, priority = 2,"
        " required_memory_bytes = peak_memory_bytes",
    )
    run(database, "UPDATE worker SET last_seen = '2000-01-01'")
    numbers = [must_claim(database, name=name, memory_bytes=24 * GIB).number for name in ("small", "another")]
    assert numbers == [1, 0]
