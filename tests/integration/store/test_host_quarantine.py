"""Hosts whose workers fail alike: when all of their workers get no trials, and how they get some again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hpo.errors import NotFoundError
from hpo.protocol import Lease
from hpo.store import Database, events, host_quarantine, quarantine, trials, workers
from hpo.store.studies import StudyRow
from hpo.store.workers import WorkerRow
from hpo.trial import MACHINE_FAULTS, Fault

from .world import claim, finish, make_study, measurement, must_claim, release, report, run, suggest, worker

HOST, ELSEWHERE = "gpu-host-7", "gpu-host-8"
FULL = "No space left on device"


@pytest.fixture
def study(database: Database) -> StudyRow:
    """A study with many suggestions."""
    made = make_study(database, retry={"attempts": 9})
    suggest(database, made, 40)
    return made


def ask(database: Database, name: str, host: str = HOST, pid: int = 1) -> Lease | None:
    """Return the lease of a trial that a worker was given, if it was."""
    return claim(database, name=name, host=host, pid=pid)


def fail(database: Database, name: str, fault: Fault = Fault.STORAGE, *, host: str = HOST, times: int = 2) -> None:
    """Let a worker have trials and give them back because of a fault; twice puts it into quarantine."""
    for _ in range(times):
        lease = must_claim(database, name=name, host=host)
        release(database, lease, "crashed", fault=fault, message=f"{FULL}\nTraceback ...")
        run(database, "UPDATE trial SET not_before = NULL")


def train(database: Database, name: str, host: str = HOST) -> None:
    """Let a worker have a trial and train an epoch of it."""
    report(database, must_claim(database, name=name, host=host), measurement(1))


def row(database: Database, name: str) -> WorkerRow:
    """Return a worker."""
    with database.transaction() as connection:
        return next(found for found in workers.list_all(connection) if found.name == name)


def is_shut(database: Database, name: str = "a") -> bool:
    """Return whether the host of a worker is in quarantine."""
    return row(database, name).host_quarantined_at is not None


def shut(database: Database, fault: Fault = Fault.STORAGE) -> None:
    """Put HOST into quarantine by the workers `a` and `b`."""
    for name in ("a", "b"):
        fail(database, name, fault)
    assert is_shut(database)


def let_time_pass(database: Database, *, workers_too: bool = False) -> None:
    """Let the time of the host be over, and that of its workers with it."""
    run(database, "UPDATE host_quarantine SET quarantined_until = clock_timestamp()")
    if workers_too:
        run(database, "UPDATE worker SET quarantined_until = clock_timestamp() WHERE quarantined_at IS NOT NULL")


def seconds_left(database: Database) -> float:
    """Return how long the host waits from now on."""
    with database.transaction() as connection:
        query = "SELECT extract(epoch FROM quarantined_until - clock_timestamp()) FROM host_quarantine"
        return float(connection.exec_driver_sql(query).scalar_one())


def kinds(database: Database, study: StudyRow) -> Sequence[str]:
    """Return what happened to hosts in a study."""
    with database.transaction() as connection:
        return [each.kind for each in events.list_since(connection, study.id) if each.kind.startswith("host.")]


@pytest.mark.parametrize("fault", sorted(MACHINE_FAULTS - {Fault.FILES}))
def test_two_workers_that_fail_alike_put_their_host_into_quarantine(
    database: Database, study: StudyRow, fault: Fault
) -> None:
    assert ask(database, "well", ELSEWHERE) is not None
    fail(database, "a", fault)
    assert not is_shut(database), "one may be sick by itself"
    fail(database, "b", fault)
    found = row(database, "b")
    assert (found.host_fault, found.host_fault_message) == (fault, FULL)
    assert ask(database, "c") is None, "it would fail too, and so would a worker that is started now"
    assert ask(database, "elsewhere", ELSEWHERE) is not None
    with database.transaction() as connection:
        said = quarantine.reason(connection, "c")
        assert trials.demand(connection, study.id) == 2, "the two elsewhere"
    assert said is not None
    assert said.startswith(f"several workers of its host {HOST}, and no others, had faults of the ")
    assert said.endswith(f": {FULL}")
    assert kinds(database, study) == ["host.quarantined"]


def test_different_faults_are_not_the_hosts(database: Database, study: StudyRow) -> None:
    fail(database, "a", Fault.STORAGE)
    fail(database, "b", Fault.DEVICE)
    assert not is_shut(database)


def test_faults_that_a_configuration_may_cause_are_not_the_hosts(database: Database, study: StudyRow) -> None:
    for name in ("a", "b"):
        fail(database, name, Fault.PROCESS, times=1)
        train(database, "well", ELSEWHERE)
        fail(database, name, Fault.PROCESS, times=1)
    assert row(database, "a").quarantined_at is not None
    assert not is_shut(database)


@pytest.mark.parametrize("minutes", [0, 59, 61])
def test_a_fault_that_other_hosts_have_too_is_not_the_hosts(database: Database, study: StudyRow, minutes: int) -> None:
    fail(database, "other", host=ELSEWHERE, times=1)
    run(
        database,
        "UPDATE attempt SET claimed_at = claimed_at - make_interval(mins => :m), seen_at = seen_at - make_interval"
        "(mins => :m), ended_at = ended_at - make_interval(mins => :m) WHERE worker = 'other'",
        m=minutes,
    )
    fail(database, "a")
    fail(database, "b")
    assert is_shut(database) is (minutes > 60)


def test_a_host_that_trains_epochs_meanwhile_is_well(database: Database, study: StudyRow) -> None:
    """Two of its cards are broken, and not the driver."""
    lease = must_claim(database, name="well", host=HOST)
    fail(database, "a", Fault.DEVICE)
    fail(database, "b", Fault.DEVICE, times=1)
    report(database, lease, measurement(1))
    fail(database, "b", Fault.DEVICE, times=1)
    assert row(database, "b").quarantined_at is not None
    assert not is_shut(database)


def test_what_it_trained_before_says_nothing(database: Database, study: StudyRow) -> None:
    lease = must_claim(database, name="c", host=HOST)
    report(database, lease, measurement(1))
    shut(database)


def test_one_worker_at_a_time_may_show_that_the_host_is_well(database: Database, study: StudyRow) -> None:
    shut(database)
    assert seconds_left(database) == pytest.approx(120, abs=30)
    let_time_pass(database)
    assert ask(database, "a") is None, "its own time is not over"
    lease = ask(database, "c")
    assert lease is not None
    assert (ask(database, "d"), ask(database, "c")) == (None, None), "one"
    assert claim(database, name="c", host=HOST, lease_id=lease.lease_id) is not None, "which it may ask for again"
    report(database, lease)
    assert is_shut(database), "a heartbeat shows nothing"
    report(database, lease, measurement(1))
    assert not is_shut(database)
    assert ask(database, "d") is not None
    assert ask(database, "a") is not None, "what is well again may show it"
    assert kinds(database, study) == ["host.quarantined", "host.released"]


def test_two_claims_at_once_are_one_try(database: Database, study: StudyRow) -> None:
    shut(database)
    let_time_pass(database)
    with database.transaction() as first, database.transaction() as second:
        infos = [worker(name, host=HOST) for name in ("c", "d")]
        tries = [host_quarantine.may_try(one, info) for one, info in zip((first, second), infos, strict=True)]
    assert tries == [True, False]


def test_its_time_doubles_with_every_further_fault_up_to_an_hour(database: Database, study: StudyRow) -> None:
    shut(database)
    seen = []
    for number in range(6):
        let_time_pass(database)
        fail(database, f"new-{number}", times=1)
        seen.append(seconds_left(database))
    assert seen == pytest.approx([240, 480, 960, 1920, 3600, 3600], abs=30)
    run(database, "UPDATE host_quarantine SET faults = 5000")
    let_time_pass(database)
    fail(database, "last", times=1)
    assert seconds_left(database) == pytest.approx(3600, abs=30)


@pytest.mark.parametrize(("end", "seconds"), [("drained", 0), ("failed", 240), ("crashed", 3600)])
def test_a_try_that_ends_before_its_first_epoch_shows_little(
    database: Database, study: StudyRow, end: str, seconds: float
) -> None:
    shut(database)
    run(database, "UPDATE host_quarantine SET faults = 1")
    let_time_pass(database)
    lease = must_claim(database, name="c", host=HOST)
    if end == "failed":
        finish(database, lease, "failed", failure_kind="diverged")
    else:
        release(database, lease, end)
    assert seconds_left(database) == pytest.approx(seconds, abs=30)
    assert is_shut(database)


@pytest.mark.parametrize(("since", "pid", "tries"), [("2 min", 2, True), ("30 s", 2, False), ("2 min", 1, False)])
def test_after_a_restart_it_may_try_unless_that_was_at_once(
    database: Database, study: StudyRow, since: str, pid: int, tries: bool
) -> None:
    ask(database, "c")
    shut(database)
    run(database, "UPDATE host_quarantine SET faulted_at = clock_timestamp() - CAST(:since AS interval)", since=since)
    assert (ask(database, "c", pid=pid) is not None) is tries


def test_a_person_ends_it_for_the_whole_host(database: Database, study: StudyRow) -> None:
    shut(database)
    with database.transaction() as connection:
        quarantine.release_host(connection, HOST, actor="ada")
        with pytest.raises(NotFoundError, match="no worker of a host 'nowhere'"):
            quarantine.release_host(connection, "nowhere", actor="ada")
    assert [(row(database, name).faults, row(database, name).quarantined_at) for name in "ab"] == [(0, None)] * 2
    assert all(ask(database, name) is not None for name in "abc")


def test_a_person_who_releases_a_worker_releases_its_host(database: Database, study: StudyRow) -> None:
    shut(database)
    with database.transaction() as connection:
        quarantine.release(connection, "a", actor="ada")
    assert not is_shut(database)
    assert ask(database, "a") is not None
    assert row(database, "b").quarantined_at is not None, "of this one nothing was said"


def test_a_trial_that_failed_here_is_not_kept_for_workers_of_a_host_in_quarantine(
    database: Database, study: StudyRow
) -> None:
    run(database, "UPDATE trial SET not_before = now() + interval '1 h' WHERE number > 0")
    run(database, "UPDATE trial SET not_before = NULL WHERE number = 0")
    lease = must_claim(database, name="first", host=ELSEWHERE)
    ask(database, "c")
    release(database, lease, "crashed", fault=Fault.SYSTEM)
    run(database, "UPDATE trial SET not_before = NULL WHERE number = 0")
    assert ask(database, "first", ELSEWHERE) is None, "c could have it"
    run(
        database,
        "INSERT INTO host_quarantine (host, fault, quarantined_until) VALUES (:host, :fault, now() + interval '1 h')",
        host=HOST,
        fault=Fault.STORAGE,
    )
    assert ask(database, "first", ELSEWHERE) is not None
