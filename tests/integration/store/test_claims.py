"""Claims: order, fit, backoff, retries, and claimers that race."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from hpo.errors import NotFoundError, StaleLeaseError
from hpo.protocol import Measurement
from hpo.store import Database, lifecycle, studies, trials
from hpo.store.lifecycle import BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS
from hpo.trial import FailureKind, StudyState, TrialState

from .world import (
    OWNER,
    claim,
    expire,
    finish,
    generator_is_alive,
    make_study,
    measurement,
    must_claim,
    reap,
    record,
    release,
    report,
    run,
    scalar,
    skip_backoff,
    suggest,
    suggestion,
)


def together(count: int, action: Callable[[int], Any]) -> list[Any]:
    """Return the results of an action in `count` threads that begin at the same moment."""
    barrier = threading.Barrier(count)

    def act(index: int) -> Any:
        barrier.wait(timeout=30)
        return action(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, range(count)))


def backoff_of(database: Database, trial_id: int) -> float:
    """Return the seconds until a trial may be claimed."""
    with database.transaction() as connection:
        left = "SELECT EXTRACT(epoch FROM not_before - clock_timestamp()) FROM trial WHERE id = :id"
        return float(scalar(connection, left, id=trial_id))


def test_a_claim_brings_all_that_is_needed_to_run(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    assert (lease.study, lease.number, lease.attempt, lease.params) == ("study", 0, 1, {"lr": 0.001})
    assert lease.config["lr"] == 0.001
    assert lease.config == study.spec.trial_config({"lr": 0.001}, number=0)
    assert lease.task == study.spec.task
    assert (lease.lease_seconds, lease.heartbeat_seconds) == (60, 15)


def test_a_claim_without_a_free_trial_returns_none_and_stores_the_worker(database: Database) -> None:
    study = make_study(database)
    assert claim(database) is None
    with database.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM worker") == 1
    assert claim(database, study, name="other") is None


def test_sixteen_claimers_get_each_trial_exactly_once(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 50)

    def drain(index: int) -> list[int]:
        taken = []
        while (lease := claim(database, name=f"worker-{index}")) is not None:
            taken.append(lease.trial_id)
        return taken

    taken = Counter(trial_id for part in together(16, drain) for trial_id in part)
    # A claimer that met only locked rows has gone home early; the rest is still there for the asking.
    while (lease := claim(database)) is not None:
        taken[lease.trial_id] += 1
    assert len(taken) == 50
    assert set(taken.values()) == {1}


def test_the_same_claim_sent_by_many_at_once_takes_one_trial(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 5)
    lease_id = uuid4()
    leases = together(8, lambda _: claim(database, lease_id=lease_id))
    assert {(lease.trial_id, lease.attempt) for lease in leases} == {(leases[0].trial_id, 1)}


@pytest.mark.parametrize("end", ["finished", "drained", "paused", "crashed", "taken over", "cancelled"])
def test_a_lease_id_is_good_for_one_claim(end: str, database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    lease = must_claim(database)
    match end:
        case "finished":
            finish(database, lease)
        case "taken over":
            expire(database, lease.trial_id)
            reap(database)
            skip_backoff(database, lease.trial_id)
            assert must_claim(database, name="worker-2").trial_id == lease.trial_id
        case "cancelled":
            with database.transaction() as connection:
                lifecycle.cancel(connection, lease.trial_id, actor="test")
            release(database, lease, "drained")
        case _:
            release(database, lease, end)
            skip_backoff(database, lease.trial_id)
    with pytest.raises(StaleLeaseError, match="new lease id"):
        claim(database, lease_id=lease.lease_id)
    assert claim(database) is not None, "there was something to claim"


def test_begun_trials_are_claimed_first_then_in_order_of_suggestion(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 3)
    first = must_claim(database)
    release(database, first, "drained")
    second = must_claim(database)
    assert second.trial_id == first.trial_id
    release(database, second, "paused", checkpoint="/checkpoints/1")
    third = must_claim(database)
    assert (third.trial_id, third.attempt, third.checkpoint) == (first.trial_id, 3, "/checkpoints/1")
    assert [must_claim(database).number for _ in range(2)] == [1, 2]


def test_a_claim_may_be_limited_to_one_study(database: Database) -> None:
    suggest(database, make_study(database, "one"))
    other = make_study(database, "other")
    suggest(database, other)
    assert must_claim(database, other).study == "other"
    assert claim(database, other) is None


def test_only_active_studies_hand_out_trials(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    with database.transaction() as connection:
        studies.set_state(connection, "study", StudyState.PAUSED, actor="test")
    assert claim(database) is None
    with database.transaction() as connection:
        studies.set_state(connection, "study", StudyState.ACTIVE, actor="test")
    assert claim(database) is not None


def test_a_trial_is_only_given_to_a_device_that_it_fits(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database, memory_bytes=24 * 2**30)
    report(database, lease, peak_memory_bytes=20 * 2**30)
    release(database, lease, "drained")
    assert claim(database, name="small", memory_bytes=16 * 2**30) is None
    assert claim(database, name="large enough", memory_bytes=20 * 2**30) is not None


def test_draining_costs_no_retry_and_no_wait(database: Database) -> None:
    study = make_study(database, retry={"attempts": 0})
    suggest(database, study)
    for attempt in range(1, 6):
        lease = must_claim(database)
        assert lease.attempt == attempt
        release(database, lease, "drained")
    assert record(database, lease.trial_id).state is TrialState.SUGGESTED


def test_lost_workers_use_up_the_retries_with_a_growing_wait(database: Database) -> None:
    study = make_study(database, retry={"attempts": 2})
    (trial,) = suggest(database, study)
    for retry in range(2):
        must_claim(database)
        expire(database, trial.id)
        assert reap(database) == [trial.id]
        assert record(database, trial.id).state is TrialState.SUGGESTED
        assert claim(database) is None, "it waits"
        assert backoff_of(database, trial.id) == pytest.approx(BACKOFF_SECONDS * 2**retry, abs=5)
        skip_backoff(database, trial.id)
    lease = must_claim(database)
    expire(database, trial.id)
    reap(database)
    lost = record(database, trial.id)
    assert (lost.state, lost.failure_kind, lost.attempt) == (TrialState.FAILED, FailureKind.LOST, 3)
    with pytest.raises(StaleLeaseError):
        finish(database, lease)


def test_the_wait_has_a_limit(database: Database) -> None:
    study = make_study(database, retry={"attempts": 100})
    (trial,) = suggest(database, study)
    lease = must_claim(database)
    run(database, "UPDATE trial SET attempt = 50, retries = 40")
    release(database, lease.model_copy(update={"attempt": 50}), "crashed")
    assert backoff_of(database, trial.id) == pytest.approx(BACKOFF_LIMIT_SECONDS, abs=5)


def test_a_crash_costs_a_retry_and_the_last_one_is_the_reason_of_the_failure(database: Database) -> None:
    study = make_study(database, retry={"attempts": 1})
    (trial,) = suggest(database, study)
    release(database, must_claim(database), "crashed", message="killed by signal 9")
    skip_backoff(database, trial.id)
    release(database, must_claim(database), "crashed", message="killed by signal 9")
    failed = record(database, trial.id)
    assert (failed.failure_kind, failed.failure_message) == (FailureKind.LOST, "killed by signal 9")


def test_a_worker_that_reports_after_its_lease_expired_continues_without_a_retry(database: Database) -> None:
    study = make_study(database, retry={"attempts": 1})
    (trial,) = suggest(database, study)
    lease = must_claim(database)
    for _ in range(3):
        expire(database, trial.id)
        reap(database)
        report(database, lease, measurement(1))
        assert record(database, trial.id).state is TrialState.RUNNING
    assert finish(database, lease).state is TrialState.COMPLETED


def test_a_late_result_counts_until_somebody_else_has_claimed(database: Database) -> None:
    suggest(database, make_study(database), 2)
    alone = must_claim(database)
    expire(database, alone.trial_id)
    reap(database)
    assert finish(database, alone).state is TrialState.COMPLETED
    late = must_claim(database)
    expire(database, late.trial_id)
    reap(database)
    skip_backoff(database, late.trial_id)
    other = must_claim(database, name="worker-2")
    with pytest.raises(StaleLeaseError):
        finish(database, late, metrics={"val_top1": 0.1})
    finish(database, other, metrics={"val_top1": 0.9})
    assert record(database, late.trial_id).metrics == {"val_top1": 0.9}


def test_of_two_finishes_at_once_one_is_accepted(database: Database) -> None:
    study = make_study(database)
    (trial,) = suggest(database, study)
    lease = must_claim(database)

    def act(index: int) -> float | None:
        try:
            finish(database, lease, metrics={"val_top1": index / 8})
        except StaleLeaseError:
            return None
        return index / 8

    accepted = [value for value in together(8, act) if value is not None]
    assert len(accepted) == 1
    assert record(database, trial.id).metrics == {"val_top1": accepted[0]}


def test_trials_are_taken_back_in_their_order_whatever_the_plan_of_the_query(database: Database) -> None:
    suggest(database, make_study(database), 3)
    leases = [must_claim(database) for _ in range(3)]
    # Each change moves a row behind the others in the table.
    for lease in reversed(leases):
        run(database, "UPDATE trial SET lease_expires_at = '2000-01-01' WHERE id = :id", id=lease.trial_id)
    with database.transaction() as connection:
        for plan in ("indexscan", "bitmapscan", "nestloop", "mergejoin"):
            connection.execute(text(f"SET LOCAL enable_{plan} = off"))
        assert lifecycle.reap(connection) == [lease.trial_id for lease in leases]


def test_reaping_and_reporting_at_once_leave_one_owner(database: Database) -> None:
    study = make_study(database, retry={"attempts": 100}, task={"dataset": {"root": "/data"}, "epochs": 9})
    (trial,) = suggest(database, study)
    lease = must_claim(database)
    for step in range(1, 10):
        expire(database, trial.id)
        measured = measurement(step)

        def act(index: int, measured: Measurement = measured) -> object:
            return reap(database) if index % 2 else report(database, lease, measured)

        together(4, act)
        # Whoever came first: the worker's next heartbeat finds the trial its own, and no retry is spent.
        report(database, lease)
        with database.transaction() as connection:
            assert scalar(connection, "SELECT retries FROM trial") == 0
    assert record(database, trial.id).gpu_seconds == 18


def test_a_trial_is_claimed_with_the_old_or_the_new_parameters_never_replaced_after(database: Database) -> None:
    study = make_study(database)
    trials = suggest(database, study, 12)
    with database.transaction() as connection:
        generation = studies.acquire_generator(connection, study.id, OWNER, 3600)
    assert generation is not None

    def act(index: int) -> Any:
        if index % 2:
            return [claim(database) for _ in range(6)]
        with database.transaction() as connection:
            return {
                trial.id: lifecycle.replace_suggestion(
                    connection, trial.id, suggestion(0.5), owner=OWNER, generation=generation
                )
                for trial in trials
            }

    replaced, leases = together(2, act)
    for lease in filter(None, leases):
        assert (lease.params == {"lr": 0.5}) == replaced[lease.trial_id]
        assert record(database, lease.trial_id).params == lease.params


def test_an_optimizer_that_lost_its_lease_cannot_suggest(database: Database) -> None:
    study = make_study(database)
    with database.transaction() as connection:
        old = studies.acquire_generator(connection, study.id, "old", 60)
        assert studies.acquire_generator(connection, study.id, "new", 60) is None
    run(database, "UPDATE study SET generator_expires_at = '2000-01-01'")
    with database.transaction() as connection:
        assert not generator_is_alive(connection, study.id)
        new = studies.acquire_generator(connection, study.id, "new", 60)
    assert old is not None
    assert new == old + 1
    with database.transaction() as connection:
        assert lifecycle.suggest(connection, study.id, [suggestion()], owner="old", generation=old) == []
        assert lifecycle.suggest(connection, study.id, [suggestion()], owner="old", generation=new) == []
        assert len(lifecycle.suggest(connection, study.id, [suggestion()], owner="new", generation=new)) == 1
        studies.release_generator(connection, study.id, "old")
        assert generator_is_alive(connection, study.id)
        studies.release_generator(connection, study.id, "new")
        assert not generator_is_alive(connection, study.id)


def test_of_many_optimizers_at_once_one_gets_the_lease(database: Database) -> None:
    study = make_study(database)

    def act(index: int) -> int | None:
        with database.transaction() as connection:
            return studies.acquire_generator(connection, study.id, f"optimizer-{index}", 60)

    assert sorted(together(8, act), key=lambda got: got or 0) == [None] * 7 + [1]


def test_trials_keep_the_predicted_probability_that_constraints_hold(database: Database) -> None:
    study = make_study(database)
    likely, unlikely = (replace(suggestion(), predicted_feasibility=share) for share in (0.75, 0.25))
    with database.transaction() as connection:
        generation = studies.acquire_generator(connection, study.id, OWNER, 60)
        assert generation is not None
        found = lifecycle.suggest(connection, study.id, [likely, suggestion()], owner=OWNER, generation=generation)
        lifecycle.replace_suggestion(connection, found[1].id, unlikely, owner=OWNER, generation=generation)
        told = [record.predicted_feasibility for record in trials.records(connection, study.id)]
    assert told == [0.75, 0.25]


def test_suggesting_at_once_keeps_the_numbers_gap_free_and_the_budget(database: Database) -> None:
    study = make_study(database, budget={"trials": 20})
    suggest(database, study, 0)
    together(6, lambda _: suggest(database, study, 5))
    with database.transaction() as connection:
        numbers = connection.execute(text("SELECT number FROM trial ORDER BY number")).scalars().all()
    assert list(numbers) == list(range(20))


def test_a_withdrawn_suggestion_gives_its_place_in_the_budget_back(database: Database) -> None:
    study = make_study(database, budget={"trials": 2})
    suggest(database, study, 5)
    with database.transaction() as connection:
        assert lifecycle.withdraw(connection, study.id, actor="test") == 2
    assert [record.number for record in suggest(database, study, 5)] == [2, 3]


def test_a_cancelled_trial_stops_at_once_or_with_its_worker(database: Database) -> None:
    study = make_study(database)
    running, paused, fresh = suggest(database, study, 3)
    lease = must_claim(database)
    other = must_claim(database)
    report(database, other, measurement(1, 0.25))
    release(database, other, "paused")
    with database.transaction() as connection:
        for trial in (running, paused, fresh):
            lifecycle.cancel(connection, trial.id, actor="test")
    assert record(database, fresh.id).state is TrialState.WITHDRAWN
    assert record(database, paused.id).metrics == {"val_top1": 0.25}
    assert report(database, lease, measurement(1, 0.75)).cancel
    expire(database, running.id)
    reap(database)
    ended = record(database, running.id)
    assert (ended.state, ended.metrics) == (TrialState.STOPPED, {"val_top1": 0.75})


def test_a_trial_that_is_not_there_is_not_found(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM study"))
    for action in (
        lambda: report(database, lease),
        lambda: finish(database, lease),
        lambda: release(database, lease, "drained"),
    ):
        with pytest.raises(NotFoundError, match="deleted"):
            action()


def test_a_suggestion_is_given_to_no_device_that_is_expected_to_be_too_small(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 0)
    needs = [replace(suggestion(0.01), required_memory_bytes=16 * 2**30), suggestion(0.02)]
    with database.transaction() as connection:
        generation = studies.acquire_generator(connection, study.id, OWNER, 60)
        assert generation is not None
        large, small = lifecycle.suggest(connection, study.id, needs, owner=OWNER, generation=generation)
    assert must_claim(database, name="w1", memory_bytes=8 * 2**30).trial_id == small.id
    assert claim(database, name="w2", memory_bytes=8 * 2**30) is None
    with database.transaction() as connection:
        assert lifecycle.replace_suggestion(connection, large.id, suggestion(0.03), owner=OWNER, generation=generation)
    assert must_claim(database, name="w2", memory_bytes=8 * 2**30).trial_id == large.id


@pytest.mark.parametrize("reason", ["paused", "drained", "crashed"])
@pytest.mark.parametrize("rule", [{"name": "none"}, {"name": "asha", "min_epochs": 1, "reduction": 2, "pause": True}])
def test_a_trial_that_is_released_after_it_was_cancelled_ends(
    database: Database, reason: str, rule: dict[str, object]
) -> None:
    """Its worker pauses, drains or crashes before it has seen the flag: the trial does not wait for another one."""
    study = make_study(database, early_stopping=rule)
    (trial,) = suggest(database, study)
    lease = must_claim(database)
    report(database, lease, measurement(1, 0.25), measurement(2, 0.5))
    with database.transaction() as connection:
        assert lifecycle.cancel(connection, trial.id, actor="test") is TrialState.RUNNING
    release(database, lease, reason, checkpoint="/c")
    ended = record(database, trial.id)
    assert (ended.state, ended.metrics, ended.failure_kind) == (TrialState.STOPPED, {"val_top1": 0.5}, None)
    assert claim(database) is None
    with database.transaction() as connection:
        assert lifecycle.promote(connection, study.id, [trial.id], actor="test") == 0


@pytest.mark.parametrize("is_held", [False, True])
def test_a_paused_trial_that_is_cancelled_cannot_be_claimed_again(database: Database, is_held: bool) -> None:
    rule = {"name": "asha", "min_epochs": 1, "reduction": 2, "pause": True} if is_held else {"name": "none"}
    study = make_study(database, early_stopping=rule)
    (trial,) = suggest(database, study)
    lease = must_claim(database)
    report(database, lease, measurement(1, 0.25))
    release(database, lease, "paused", checkpoint="/c")
    with database.transaction() as connection:
        assert lifecycle.cancel(connection, trial.id, actor="test") is TrialState.STOPPED
        assert lifecycle.cancel(connection, trial.id, actor="test") is TrialState.STOPPED, "once more changes nothing"
        assert lifecycle.promote(connection, study.id, [trial.id], actor="test") == 0
    assert claim(database) is None
    ended = record(database, trial.id)
    assert (ended.state, ended.metrics) == (TrialState.STOPPED, {"val_top1": 0.25})
