"""Faults of machines: what they cost a trial, when a worker gets no trials, and how it gets some again."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from hpo.errors import NotFoundError
from hpo.protocol import Lease
from hpo.store import Database, events, lifecycle, quarantine, waiting, workers
from hpo.store.studies import StudyRow
from hpo.store.workers import WorkerRow
from hpo.trial import MACHINE_FAULTS, FailureKind, Fault, StudyState, TrialState

from .world import (
    claim,
    end_finished_studies,
    expire,
    finish,
    make_study,
    measurement,
    must_claim,
    reap,
    record,
    release,
    report,
    run,
    study_row,
    suggest,
)

MACHINES = sorted(MACHINE_FAULTS - {Fault.FILES})
OTHERS = sorted(set(Fault) - MACHINE_FAULTS)
SICK, WELL = "sick", "well"
_EARLIER = """
UPDATE attempt
SET claimed_at = claimed_at - make_interval(secs => :seconds), seen_at = seen_at - make_interval(secs => :seconds),
    ended_at = ended_at - make_interval(secs => :seconds)
"""


def fail(database: Database, lease: Lease, fault: Fault = Fault.DEVICE, message: str = "it is lost") -> None:
    """Give a trial back because of a fault, and let the wait of its retry be over."""
    release(database, lease, "crashed", fault=fault, message=message)
    run(database, "UPDATE trial SET not_before = NULL")


def row(database: Database, name: str = SICK) -> WorkerRow:
    """Return a worker."""
    with database.transaction() as connection:
        return next(found for found in workers.list_all(connection) if found.name == name)


def kinds(database: Database, study: StudyRow) -> list[str]:
    """Return what happened to workers in a study."""
    with database.transaction() as connection:
        return [each.kind for each in events.list_since(connection, study.id) if each.kind.startswith("worker.")]


def retries(database: Database, trial_id: int) -> int:
    """Return how many retries of a trial are used up."""
    with database.transaction() as connection:
        return int(connection.execute(text("SELECT retries FROM trial WHERE id = :id"), {"id": trial_id}).scalar_one())


def train(database: Database, study: StudyRow, name: str = WELL, epochs: int = 1) -> Lease:
    """Return the lease of a trial that a worker has claimed and trained for some epochs."""
    lease = must_claim(database, study, name=name)
    report(database, lease, *[measurement(step) for step in range(1, epochs + 1)])
    return lease


def quarantined(database: Database, study: StudyRow, fault: Fault = Fault.DEVICE) -> None:
    """Put the worker SICK into quarantine by two faults."""
    for _ in range(2):
        fail(database, must_claim(database, study, name=SICK), fault)
    assert row(database).quarantined_at is not None


# ---------------------------------------------------------------- what a fault costs a trial


@pytest.mark.parametrize("fault", MACHINES)
def test_a_fault_of_the_machine_costs_no_retry_and_is_no_evidence(database: Database, fault: Fault) -> None:
    study = make_study(database, retry={"attempts": 0})
    suggest(database, study)
    lease = must_claim(database, study, name=SICK)
    release(database, lease, "crashed", fault=fault)
    found = record(database, lease.trial_id)
    assert (found.state, found.lost_on, retries(database, found.id)) == (TrialState.SUGGESTED, (), 0)


@pytest.mark.parametrize("fault", [*OTHERS, None])
def test_any_other_crash_costs_a_retry_and_is_evidence(database: Database, fault: Fault | None) -> None:
    study = make_study(database, retry={"attempts": 1})
    suggest(database, study)
    lease = must_claim(database, study, name=SICK)
    release(database, lease, "crashed", fault=fault)
    found = record(database, lease.trial_id)
    assert (found.state, found.lost_on, retries(database, found.id)) == (TrialState.SUGGESTED, (SICK,), 1)
    run(database, "UPDATE trial SET not_before = NULL")
    release(database, must_claim(database, study, name=SICK), "crashed", fault=fault)
    found = record(database, lease.trial_id)
    assert (found.state, found.failure_kind) == (TrialState.FAILED, FailureKind.LOST)


def test_a_computation_that_stops_on_two_machines_is_an_error_of_the_trial(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    illegal = "an illegal memory access"
    fail(database, must_claim(database, study, name=SICK), Fault.KERNEL, illegal)
    lease = must_claim(database, study, name=WELL)
    fail(database, lease, Fault.KERNEL, illegal)
    found = record(database, lease.trial_id)
    assert (found.state, found.failure_kind, found.failure_message) == (TrialState.FAILED, FailureKind.ERROR, illegal)


def test_the_same_machine_twice_says_nothing_about_the_trial(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    for _ in range(2):
        lease = must_claim(database, study, name=SICK)
        fail(database, lease, Fault.KERNEL)
    assert record(database, lease.trial_id).state is TrialState.SUGGESTED


def test_a_trial_that_fails_on_machines_which_complete_others_ends(database: Database) -> None:
    """No trial is handed out for ever: after `MOST_FAULTS` faults of machines that are well otherwise it has failed."""
    study = make_study(database)
    suggest(database, study, 2 * lifecycle.MOST_FAULTS + 2)
    poison = must_claim(database, study, name="w0")
    for number in range(lifecycle.MOST_FAULTS):
        fail(database, poison, Fault.STORAGE)
        assert record(database, poison.trial_id).state is TrialState.SUGGESTED
        # The same worker completes another trial; then a new one takes the poisoned trial.
        run(database, "UPDATE trial SET not_before = now() + interval '1 h' WHERE id = :id", id=poison.trial_id)
        lease = must_claim(database, study, name=f"w{number}")
        report(database, lease, measurement(1))
        finish(database, lease)
        run(database, "UPDATE trial SET not_before = NULL")
        poison = must_claim(database, study, name=f"w{number + 1}")
    fail(database, poison, Fault.STORAGE, "the disk is full")
    found = record(database, poison.trial_id)
    assert (found.state, found.failure_kind, found.failure_message) == (
        TrialState.FAILED,
        FailureKind.ERROR,
        "the disk is full",
    )


def test_machines_that_complete_nothing_fail_no_trial_at_once(database: Database) -> None:
    study = make_study(database, retry={"attempts": 0})
    suggest(database, study)
    for number in range(2 * lifecycle.MOST_FAULTS):
        lease = must_claim(database, study, name=f"w{number}")
        fail(database, lease, Fault.STORAGE)
    assert record(database, lease.trial_id).state is TrialState.SUGGESTED


def tried(database: Database, study: StudyRow, faults: int, hosts: int, *, hours: float, **fields: Any) -> Lease:
    """Let a trial meet faults of disks over some hours, in turn on a worker of each host; return its last lease."""
    for number in range(faults):
        run(database, "UPDATE worker SET quarantined_at = NULL, quarantined_until = NULL")
        lease = must_claim(database, study, name=f"w{number % hosts}", host=f"h{number % hosts}", **fields)
        run(database, _EARLIER, seconds=3600 * hours / (faults - 1))
        fail(database, lease, Fault.STORAGE, "the disk is full\nmore")
    return lease


def test_a_trial_that_meets_only_faults_on_several_hosts_for_a_day_is_lost(database: Database) -> None:
    study = make_study(database, retry={"attempts": 0})
    suggest(database, study)
    lease = tried(database, study, lifecycle.MOST_FAULTS + 1, 2, hours=25)
    found = record(database, lease.trial_id)
    assert (found.state, found.failure_kind) == (TrialState.FAILED, FailureKind.LOST)
    assert found.failure_message == (
        "no machine could train it: 5 faults of w0 (storage), 4 faults of w1 (storage); the last one: the disk is "
        "full. When one can, `hpo study enqueue study --again 0` trains it again"
    )


@pytest.mark.parametrize(
    ("faults", "hosts", "hours", "change"),
    [
        (lifecycle.MOST_FAULTS, 2, 25, None),
        (lifecycle.MOST_FAULTS + 1, 2, 23, None),
        (3 * lifecycle.MOST_FAULTS, 1, 25, None),
        (lifecycle.MOST_FAULTS + 1, 2, 25, "another worker has not tried it"),
        (lifecycle.MOST_FAULTS + 1, 2, 25, "it was trained in between"),
    ],
)
def test_fewer_faults_or_faults_of_one_host_never_fail_a_trial(
    database: Database, faults: int, hosts: int, hours: float, change: str | None
) -> None:
    study = make_study(database, retry={"attempts": 0})
    (trial,) = suggest(database, study)
    if change == "it was trained in between":
        tried(database, study, faults - 2, hosts, hours=hours)
        release(database, train(database, study, SICK), "drained")
        run(database, _EARLIER, seconds=7200)
        run(database, "UPDATE worker SET last_seen = '2000-01-01' WHERE name = :name", name=SICK)
        faults = 2
    elif change is not None:
        claim(database, make_study(database, "other"), name=WELL)
        run(database, "UPDATE worker SET study = NULL")
    tried(database, study, faults, hosts, hours=hours)
    assert record(database, trial.id).state is TrialState.SUGGESTED


@pytest.mark.parametrize("larger_are", ["alive", "in quarantine"])
def test_a_worker_that_is_too_small_for_a_trial_counts_where_it_may_get_it(database: Database, larger_are: str) -> None:
    study = make_study(database, retry={"attempts": 0})
    (trial,) = suggest(database, study)
    claim(database, make_study(database, "other"), name=WELL, memory_bytes=8)
    run(database, "UPDATE worker SET study = NULL")
    run(database, "UPDATE trial SET required_memory_bytes = 16")
    lease = tried(database, study, lifecycle.MOST_FAULTS, 2, hours=25, memory_bytes=16)
    run(database, "UPDATE worker SET quarantined_at = NULL, quarantined_until = NULL")
    lease = must_claim(database, study, name="w0", host="h0", memory_bytes=16)
    run(database, _EARLIER, seconds=3600)
    if larger_are == "in quarantine":
        run(
            database,
            "UPDATE worker SET quarantined_at = faulted_at, quarantined_until = faulted_at WHERE name <> :well",
            well=WELL,
        )
    fail(database, lease, Fault.STORAGE)
    assert record(database, trial.id).state is (TrialState.FAILED if larger_are == "alive" else TrialState.SUGGESTED)
    if larger_are != "alive":
        assert must_claim(database, study, name=WELL, memory_bytes=8).trial_id == trial.id


def test_a_cancelled_trial_ends_whatever_failed(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database, study, name=SICK)
    with database.transaction() as connection:
        lifecycle.cancel(connection, lease.trial_id, actor="test")
    fail(database, lease)
    assert record(database, lease.trial_id).state is TrialState.STOPPED


# ---------------------------------------------------------------- where the trial goes


def test_a_trial_goes_to_another_worker_and_the_failed_one_gets_the_next(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 3)
    first = must_claim(database, study, name=SICK)
    other = must_claim(database, study, name=WELL)
    fail(database, first)
    assert must_claim(database, study, name=SICK).number == 2
    finish(database, other)
    again = must_claim(database, study, name=WELL)
    assert (again.trial_id, again.attempt) == (first.trial_id, 2)


@pytest.mark.parametrize("why", ["silent", "too small", "of another study", "in quarantine", "resumed since"])
def test_a_trial_comes_back_where_no_other_worker_can_have_it(database: Database, why: str) -> None:
    study = make_study(database)
    suggest(database, study)
    run(database, "UPDATE trial SET required_memory_bytes = 100")
    first = must_claim(database, study, name=SICK, memory_bytes=100)
    claim(database, name=WELL, memory_bytes=100)
    fail(database, first)
    assert claim(database, study, name=SICK, memory_bytes=100) is None
    if why == "silent":
        run(database, "UPDATE worker SET last_seen = now() - interval '2 min' WHERE name = :name", name=WELL)
    elif why == "too small":
        run(database, "UPDATE worker SET memory_bytes = 99 WHERE name = :name", name=WELL)
    elif why == "in quarantine":
        run(
            database,
            "UPDATE worker SET faults = 2, faulty_since = now(), faulted_at = now(), fault = 'device',"
            " quarantined_at = now(), quarantined_until = now() + interval '1 h' WHERE name = :name",
            name=WELL,
        )
    elif why == "resumed since":
        run(database, "UPDATE study SET state_changed_at = clock_timestamp() WHERE id = :id", id=study.id)
    elif why == "of another study":
        run(database, "UPDATE worker SET study = 'other' WHERE name = :name", name=WELL)
    assert claim(database, study, name=SICK, memory_bytes=100) is not None


def test_a_trial_that_has_failed_on_every_worker_is_not_kept_from_all_of_them(database: Database) -> None:
    """A configuration that kills each process uses up its retries; it does not wait an hour for the other worker."""
    study = make_study(database, retry={"attempts": 3})
    suggest(database, study)
    run(database, "UPDATE trial SET required_memory_bytes = 2")
    for name, memory_bytes in ((WELL, 1), ("too small", 1)):
        assert claim(database, study, name=name, memory_bytes=memory_bytes) is None
    run(database, "UPDATE worker SET memory_bytes = 2 WHERE name = :name", name=WELL)
    for name in (SICK, WELL, SICK, WELL):
        lease = must_claim(database, study, name=name, memory_bytes=2)
        fail(database, lease, Fault.PROCESS, "killed by SIGSEGV")
    found = record(database, lease.trial_id)
    assert (found.state, found.failure_kind) == (TrialState.FAILED, FailureKind.LOST)


def test_what_has_failed_on_every_worker_comes_after_what_has_not(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    for name in (SICK, WELL):
        fail(database, must_claim(database, study, name=name), Fault.SYSTEM)
    assert must_claim(database, study, name=SICK).number == 1
    assert must_claim(database, study, name=WELL).number == 0


# ---------------------------------------------------------------- quarantine


@pytest.mark.parametrize("fault", MACHINES)
def test_two_faults_of_the_machine_in_a_row_are_a_quarantine(database: Database, fault: Fault) -> None:
    study = make_study(database)
    suggest(database, study, 5)
    fail(database, must_claim(database, study, name=SICK), fault, "the first\nwith a traceback")
    assert (row(database).faults, row(database).quarantined_at) == (1, None)
    fail(database, must_claim(database, study, name=SICK), fault, "the second\nwith a traceback")
    found = row(database)
    assert (found.faults, found.fault, found.fault_message) == (2, fault, "the second")
    assert found.quarantined_at is not None
    assert claim(database, study, name=SICK) is None
    assert claim(database, study, name=WELL) is not None
    assert kinds(database, study) == ["worker.quarantined"]
    with database.transaction() as connection:
        said = quarantine.reason(connection, SICK)
        assert said is not None
        assert said.startswith("2 faults in a row, the last one of its ")
        assert said.endswith(": the second")
        assert quarantine.reason(connection, WELL) is None
        assert quarantine.reason(connection, "never heard of") is None


def test_an_epoch_between_two_faults_is_a_sign_of_health(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 5)
    for _ in range(3):
        fail(database, train(database, study, SICK))
        assert row(database).faults == 1
    lease = must_claim(database, study, name=SICK)
    report(database, lease)
    assert row(database).faults == 1, "a heartbeat shows nothing"


def test_failures_of_trials_are_no_faults(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 5)
    for kind in ("error", "oom", "diverged"):
        finish(database, must_claim(database, study, name=SICK), "failed", failure_kind=kind)
    release(database, must_claim(database, study, name=SICK), "drained")
    assert row(database).faults == 0


@pytest.mark.parametrize("fault", OTHERS)
@pytest.mark.parametrize("others", ["train", "fail too", "are not there"])
def test_what_a_configuration_may_cause_counts_only_where_others_train_without_it(
    database: Database, fault: Fault, others: str
) -> None:
    study = make_study(database, retry={"attempts": 9})
    suggest(database, study, 9)
    fail(database, must_claim(database, study, name=SICK), fault)
    if others == "train":
        train(database, study)
    elif others == "fail too":
        train(database, study)
        fail(database, must_claim(database, study, name="third"), fault)
    fail(database, must_claim(database, study, name=SICK), fault)
    assert (row(database).quarantined_at is not None) is (others == "train")


def test_its_own_attempts_do_not_show_that_others_train(database: Database) -> None:
    study = make_study(database, retry={"attempts": 9})
    suggest(database, study, 3)
    fail(database, must_claim(database, study, name=SICK), Fault.PROCESS)
    release(database, must_claim(database, study, name=SICK), "drained")
    fail(database, must_claim(database, study, name=SICK), Fault.PROCESS)
    assert (row(database).faults, row(database).quarantined_at) == (2, None)


def test_a_quarantine_gives_back_what_its_crashes_have_cost(database: Database) -> None:
    study = make_study(database, retry={"attempts": 3})
    suggest(database, study, 4)
    elsewhere = must_claim(database, study, name=WELL)
    expire(database, elsewhere.trial_id)
    reap(database)
    run(database, "UPDATE trial SET not_before = now() + interval '1 h' WHERE id = :id", id=elsewhere.trial_id)
    first = must_claim(database, study, name=SICK)
    fail(database, first, Fault.PROCESS)
    assert retries(database, first.trial_id) == 1
    train(database, study)
    second = must_claim(database, study, name=SICK)
    fail(database, second, Fault.PROCESS)
    assert row(database).quarantined_at is not None
    assert [retries(database, lease.trial_id) for lease in (first, second, elsewhere)] == [0, 0, 1]


def test_a_crash_is_given_back_once(database: Database) -> None:
    study = make_study(database, retry={"attempts": 3})
    suggest(database, study, 5)
    first = must_claim(database, study, name=SICK)
    fail(database, first, Fault.PROCESS)
    # Another worker crashes with it too, on its own account, before the first is in quarantine for more.
    run(database, "UPDATE trial SET not_before = now() + interval '1 h' WHERE id = :id", id=first.trial_id)
    finish(database, train(database, study))
    fail(database, must_claim(database, study, name=SICK), Fault.PROCESS)
    assert retries(database, first.trial_id) == 0
    lease = must_claim(database, study, name="third")
    assert lease.trial_id == first.trial_id
    fail(database, lease, Fault.PROCESS)
    assert retries(database, first.trial_id) == 1
    run(database, "UPDATE worker SET quarantined_until = clock_timestamp() WHERE name = :name", name=SICK)
    tried = must_claim(database, study, name=SICK)
    fail(database, tried, Fault.PROCESS)
    assert [retries(database, trial_id) for trial_id in (first.trial_id, tried.trial_id)] == [1, 0]


@pytest.mark.parametrize(
    ("end", "seconds"), [("drained", 0), ("paused", 0), ("diverged", 240), ("error", 240), ("crashed", 3600)]
)
def test_a_trial_that_ends_before_its_first_epoch_does_not_shut_its_worker_out(
    database: Database, end: str, seconds: int
) -> None:
    """It shows neither that the machine is well nor that it is sick. A crash without a reason shows nothing good."""
    study = make_study(database)
    suggest(database, study, 9)
    quarantined(database, study)
    run(database, "UPDATE worker SET quarantined_until = clock_timestamp(), faults = 3")
    lease = must_claim(database, study, name=SICK)
    if end in ("drained", "paused", "crashed"):
        release(database, lease, end)
    else:
        finish(database, lease, "failed", failure_kind=end)
    with database.transaction() as connection:
        left = connection.execute(
            text("SELECT extract(epoch FROM quarantined_until - clock_timestamp()) FROM worker WHERE name = :name"),
            {"name": SICK},
        ).scalar_one()
    assert left == pytest.approx(seconds, abs=20)
    assert row(database).quarantined_at is not None, "it is not shown to be well either"


def test_after_its_time_it_may_try_one_trial_and_an_epoch_ends_the_quarantine(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 9)
    quarantined(database, study)
    run(database, "UPDATE worker SET quarantined_until = clock_timestamp()")
    lease = must_claim(database, study, name=SICK)
    assert claim(database, study, name=SICK) is None, "one"
    assert claim(database, study, name=SICK, lease_id=lease.lease_id) is not None, "which it may ask for again"
    report(database, lease, measurement(1))
    assert (row(database).faults, row(database).quarantined_at, row(database).fault) == (0, None, None)
    assert claim(database, study, name=SICK) is not None
    assert kinds(database, study) == ["worker.quarantined", "worker.released"]


def test_its_time_doubles_with_every_further_fault_up_to_an_hour(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 12)
    quarantined(database, study)
    seen = []
    for _ in range(7):
        found = row(database)
        assert found.quarantined_until is not None
        assert found.faulted_at is not None
        seen.append(round((found.quarantined_until - found.faulted_at).total_seconds()))
        run(database, "UPDATE worker SET quarantined_until = clock_timestamp()")
        fail(database, must_claim(database, study, name=SICK))
    assert seen == [120, 240, 480, 960, 1920, 3600, 3600]
    assert kinds(database, study) == ["worker.quarantined"]


def test_a_worker_may_fail_for_months(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 4)
    quarantined(database, study)
    run(database, "UPDATE worker SET faults = 5000, quarantined_until = clock_timestamp()")
    fail(database, must_claim(database, study, name=SICK))
    assert row(database).faults == 5001


@pytest.mark.parametrize(
    ("seconds", "pid", "start_id", "tries"),
    [(61, 2, None, True), (59, 2, None, False), (61, 1, None, False), (61, 1, "a", True), (59, 1, "a", False)],
)
def test_a_worker_that_was_started_again_may_try_at_once(
    database: Database, seconds: int, pid: int, start_id: str | None, tries: bool
) -> None:
    """In a container, where every process may have the number 1, what it drew at its start shows it."""
    study = make_study(database)
    suggest(database, study, 4)
    quarantined(database, study)
    run(database, "UPDATE worker SET faulted_at = now() - make_interval(secs => :seconds)", seconds=seconds)
    run(database, "UPDATE worker SET pid = :pid", pid=pid)
    assert claim(database, study, name=SICK, start_id=start_id) is None
    assert (claim(database, study, name=SICK, start_id=start_id) is not None) is tries


def test_a_person_ends_a_quarantine(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 4)
    quarantined(database, study)
    with database.transaction() as connection:
        quarantine.release(connection, SICK, actor="anna")
    assert claim(database, study, name=SICK) is not None
    with database.transaction() as connection, pytest.raises(NotFoundError, match="there is no worker 'nobody'"):
        quarantine.release(connection, "nobody", actor="anna")


# ---------------------------------------------------------------- a data set that is not there


def without_data(database: Database, study: StudyRow, name: str) -> None:
    """Let a worker find that it does not have the data set."""
    fail(database, must_claim(database, study, name=name), Fault.FILES, "there is no folder /data; mount it")


def state(database: Database, study: StudyRow) -> tuple[Any, ...]:
    """Return the state of a study and its reason."""
    found = study_row(database, study.name)
    return found.state, found.state_reason


PAUSED = (StudyState.PAUSED, "no worker has the files: there is no folder /data; mount it")


def test_a_data_set_that_no_worker_has_pauses_the_study_at_once_and_costs_nothing(database: Database) -> None:
    study = make_study(database, retry={"attempts": 0})
    suggest(database, study, 2)
    without_data(database, study, SICK)
    assert state(database, study) == PAUSED
    assert row(database).faults == 0, "it is the study's, not the worker's"
    end_finished_studies(database)
    run(database, "UPDATE study SET state = 'active', state_changed_at = clock_timestamp()")
    assert must_claim(database, study, name=SICK).number == 0, "after the pause it may be there"


@pytest.fixture
def lacking(database: Database) -> tuple[StudyRow, StudyRow]:
    """Two studies with trials that wait; the worker SICK has missed the files of the first, WELL may have them."""
    study, other = (make_study(database, name) for name in ("study", "other"))
    suggest(database, study, 4)
    claim(database, other, name=WELL)
    run(database, "UPDATE worker SET study = NULL")
    without_data(database, study, SICK)
    suggest(database, other, 2)
    return study, other


def test_files_that_one_worker_lacks_keep_it_from_that_study_alone(
    database: Database, lacking: tuple[StudyRow, StudyRow]
) -> None:
    study, other = lacking
    assert state(database, study) == (StudyState.ACTIVE, None)
    assert (row(database).faults, row(database).quarantined_at) == (0, None)
    assert must_claim(database, name=SICK).study == other.name
    assert claim(database, study, name=SICK) is None
    assert must_claim(database, study, name=WELL).study == study.name
    with database.transaction() as connection:
        found = waiting.missing_files(connection)
    ((missing,),) = found.values()
    assert (list(found), missing.study, missing.message) == ([SICK], study.name, "there is no folder /data; mount it")
    assert kinds(database, study) == []


@pytest.mark.parametrize(
    ("change", "may_try"),
    [
        ("UPDATE attempt SET ended_at = ended_at + interval '1 s'", False),
        (_EARLIER.replace(":seconds", "3600"), True),
        ("UPDATE study SET state_changed_at = clock_timestamp()", True),
        ("UPDATE worker SET last_seen = last_seen - interval '2 min' WHERE name = 'well'", True),
        ("UPDATE worker SET study = 'other' WHERE name = 'well'", True),
        ("started again", True),
        ("started again at once", False),
        ("released", True),
    ],
)
def test_a_worker_tries_a_study_again_whose_files_it_missed(
    database: Database, lacking: tuple[StudyRow, StudyRow], change: str, may_try: bool
) -> None:
    """An hour later, after a person did something about it, or where no other worker could train it."""
    study, _ = lacking
    start_id = None
    if change.startswith("started again"):
        start_id = "another"
        if change == "started again":
            run(database, _EARLIER, seconds=61)
    elif change == "released":
        with database.transaction() as connection:
            quarantine.release(connection, SICK, actor="anna")
    else:
        run(database, change)
    first = claim(database, study, name=SICK, start_id=start_id)
    assert ((first or claim(database, study, name=SICK, start_id=start_id)) is not None) is may_try


def test_the_last_worker_that_lacks_it_pauses_the_study(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 6)
    for name in ("first", "second", "third"):
        claim(database, make_study(database, f"of-{name}"), name=name)
        run(database, "UPDATE worker SET study = NULL")
    without_data(database, study, "first")
    without_data(database, study, "second")
    assert state(database, study)[0] is StudyState.ACTIVE
    without_data(database, study, "third")
    assert state(database, study) == PAUSED


def test_a_worker_in_quarantine_may_have_the_files(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 6)
    quarantined(database, study)
    without_data(database, study, WELL)
    assert state(database, study) == (StudyState.ACTIVE, None)


def test_what_comes_after_the_pause_is_the_studys_as_well(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    late = must_claim(database, study, name="late")
    lease = must_claim(database, study, name=SICK)
    run(database, "UPDATE worker SET last_seen = now() - interval '2 min' WHERE name = 'late'")
    fail(database, lease, Fault.FILES, "there is no folder /data; mount it")
    fail(database, late, Fault.FILES, "there is no folder /data; mount it")
    assert state(database, study) == PAUSED
    assert row(database, "late").faults == 0


def test_workers_that_are_silent_or_serve_another_study_are_not_waited_for(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    claim(database, make_study(database, "other"), name="of the other study")
    claim(database, study, name="silent")
    run(database, "UPDATE worker SET last_seen = now() - interval '2 min' WHERE name = 'silent'")
    run(database, "UPDATE trial SET state = 'suggested', lease_expires_at = NULL WHERE state = 'running'")
    without_data(database, study, SICK)
    assert state(database, study) == PAUSED
