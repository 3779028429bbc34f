"""A budget of GPU hours in random histories: every second counts, and the limit holds at the next heartbeat.

Workers are simulated in time that the test sets. They train, fail, run into their time limit, pause at rungs, are
drained, die, and come back after their leases expired, as chance has it. What they did is written down here, and the
seconds that the store counts are compared with the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from hpo.errors import StaleLeaseError
from hpo.protocol import (
    ClaimRequest,
    FinishRequest,
    Lease,
    Measurement,
    ReleaseRequest,
    ReportRequest,
    WorkerInfo,
)
from hpo.service.decision import decide
from hpo.service.finishing import end_finished_studies
from hpo.service.upkeep import run_upkeep
from hpo.store import Database, lifecycle, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import Decision, StudyState, Suggestion, TrialState

from .clocked import Clock
from .studies import create

LEASE, HEARTBEAT, UPKEEP = 60.0, 15.0, 15.0
EPOCHS = 4
LIMIT = 240.0
PAUSING = {"name": "asha", "min_epochs": 1, "reduction": 2, "startup_trials": 0, "pause": True}
FATES = ("completes", "completes", "fails", "times out", "is drained", "dies", "is away")


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What the test knows of one attempt; times are seconds since the start."""

    lease: Lease
    claimed: float
    seen: float
    ended: float | None = None
    is_alive: bool = True

    def seconds(self, now: float) -> float:
        """Return for how long its device has been in use, as a person would say."""
        if self.ended is not None:
            return self.ended - self.claimed
        return min(now, self.seen + HEARTBEAT) - self.claimed


@dataclass(slots=True, kw_only=True)
class Worker:
    """A worker of the simulation, with what it is going to do."""

    name: str
    attempt: Attempt | None = None
    fate: str = ""
    epoch: int = 0
    epoch_ends: float = math.inf
    breaks_at: float = math.inf
    """When it fails, is drained, dies or is away."""
    back_at: float = 0.0
    last: float | None = None
    """The value of its last epoch."""

    def next_call(self) -> float:
        """Return when it does something next."""
        if self.attempt is None:
            return self.back_at
        return max(min(self.epoch_ends, self.breaks_at, self.attempt.seen + HEARTBEAT), self.back_at)


@dataclass(slots=True, kw_only=True)
class History:
    """A study, its workers, and what happened."""

    database: Database
    clock: Clock
    random: Random
    study: StudyRow
    workers: list[Worker]
    now: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)
    """The last value that each trial has reported, by id."""
    reached_at: float | None = None
    """When the seconds used reached the limit, at the latest."""

    def used(self) -> float:
        return sum(attempt.seconds(self.now) for attempt in self.attempts)

    def run(self) -> None:
        upkeep_at = UPKEEP
        while self.row().finished_at is None:
            assert self.now < 20 * LIMIT, "the study does not end"
            worker = min(self.workers, key=lambda worker: worker.next_call())
            if upkeep_at <= worker.next_call():
                self.set(upkeep_at)
                run_upkeep(self.database)
                upkeep_at += UPKEEP
                self.reap()
            else:
                self.set(max(self.now, worker.next_call()))
                self.act(worker)
            self.check()

    def row(self) -> StudyRow:
        with self.database.transaction() as connection:
            return studies.get_by_id(connection, self.study.id)

    def set(self, now: float) -> None:
        self.now = now
        self.clock.set(now)
        if self.reached_at is None and self.used() >= LIMIT:
            self.reached_at = now

    def check(self) -> None:
        row = self.row()
        assert row.gpu_seconds_spent == pytest.approx(self.used(), abs=1e-3), "every second counts once"
        parts = (row.gpu_seconds_trained, row.gpu_seconds_failed, row.gpu_seconds_of_startup)
        assert sum(parts) == pytest.approx(row.gpu_seconds_spent)
        if self.reached_at is not None and self.now > self.reached_at + HEARTBEAT:
            assert row.budget_reached_at is not None
            # A worker that is away may still train, but nobody has heard of it.
            late = [attempt for attempt in self.attempts if attempt.ended is None and attempt.is_alive]
            assert not late, "a heartbeat after the limit nothing runs any more"

    def reap(self) -> None:
        for attempt in self.attempts:
            if attempt.ended is None and self.now > attempt.seen + LEASE:
                attempt.ended = attempt.seen + HEARTBEAT

    # --- workers

    def act(self, worker: Worker) -> None:
        attempt = worker.attempt
        if attempt is None:
            self.claim(worker)
        elif self.now < worker.breaks_at and self.now < worker.epoch_ends:
            self.report(worker, attempt)
        elif worker.epoch_ends <= worker.breaks_at:
            self.end_epoch(worker, attempt)
        elif worker.fate == "is away" and attempt.is_alive:
            # Trains on without the API; it comes back before or after its lease has expired.
            attempt.is_alive = False
            worker.back_at = self.now + self.random.uniform(1, 2 * LEASE)
            worker.breaks_at = math.inf
            worker.epoch_ends = max(worker.epoch_ends, worker.back_at)
        else:
            self.break_off(worker, attempt)

    def claim(self, worker: Worker) -> None:
        worker.back_at = self.now + 2.0
        info = WorkerInfo(name=worker.name, host="here", pid=1, device="cpu")
        with self.database.transaction() as connection:
            request = ClaimRequest(worker=info, lease_id=uuid4(), study=self.study.name)
            lease = lifecycle.claim(connection, request, lease_seconds=LEASE)
        if lease is None:
            return
        assert self.used() < LIMIT, "nothing is claimed once the hours are used up"
        attempt = Attempt(lease=lease, claimed=self.now, seen=self.now)
        self.attempts.append(attempt)
        worker.attempt, worker.fate, worker.back_at = attempt, self.random.choice(FATES), 0.0
        worker.epoch, worker.last = lease.epochs_done, self.values.get(lease.trial_id)
        worker.epoch_ends = self.now + self.random.uniform(0, 20) + self.random.uniform(5, 25)
        has_end = worker.fate != "completes"
        worker.breaks_at = self.now + self.random.uniform(0, 60) if has_end else math.inf

    def end_epoch(self, worker: Worker, attempt: Attempt) -> None:
        worker.epoch += 1
        value = self.random.choice((0.2, 0.5, 0.8))
        seconds = self.random.uniform(0, self.now - max(attempt.seen, attempt.claimed))
        worker.epoch_ends = self.now + self.random.uniform(5, 25)
        measured = Measurement(
            step=worker.epoch, metrics={"val_top1": value}, wall_seconds=seconds, gpu_seconds=seconds
        )
        if self.report(worker, attempt, measured) and worker.epoch == EPOCHS:
            self.finish(worker, attempt, outcome="completed", metrics={"val_top1": value})

    def report(self, worker: Worker, attempt: Attempt, *measured: Measurement) -> bool:
        """Return whether the worker still has its trial after a report or a heartbeat."""
        lease = attempt.lease
        fence = {"attempt": lease.attempt, "lease_id": lease.lease_id}
        try:
            with self.database.transaction() as connection:
                request = ReportRequest(**fence, measurements=list(measured))  # type: ignore[arg-type]  # as drawn
                reported = lifecycle.report(connection, lease.trial_id, request)
        except StaleLeaseError:
            self.drop(worker)
            return False
        attempt.seen, attempt.ended, attempt.is_alive = self.now, None, True
        for measurement in measured:
            self.values[lease.trial_id] = worker.last = measurement.metrics["val_top1"]
        if self.reached_at is None and self.used() >= LIMIT:
            self.reached_at = self.now  # it was away, and what it did meanwhile counts from now on
        step = measured[-1].step if measured else None
        decision = decide(self.database, reported, lease.trial_id, last_step=step)
        if self.used() >= LIMIT:
            assert decision is Decision.STOP, "the limit holds at the next heartbeat"
        if decision is Decision.STOP and worker.last is not None:
            self.finish(worker, attempt, outcome="stopped", metrics={"val_top1": worker.last})
        elif decision is Decision.STOP:
            self.release(worker, attempt, "drained")
        elif decision is Decision.PAUSE:
            self.release(worker, attempt, "paused")
        return decision is Decision.CONTINUE

    def break_off(self, worker: Worker, attempt: Attempt) -> None:
        if worker.fate == "fails":
            self.finish(worker, attempt, outcome="failed", failure_kind=self.random.choice(("oom", "error")))
        elif worker.fate == "times out":
            self.finish(worker, attempt, outcome="failed", failure_kind="timeout")
        elif worker.fate == "is drained":
            self.release(worker, attempt, self.random.choice(("drained", "crashed")))
        else:
            attempt.is_alive = False
            self.drop(worker)

    def finish(self, worker: Worker, attempt: Attempt, **result: Any) -> None:
        lease = attempt.lease
        request = FinishRequest(attempt=lease.attempt, lease_id=lease.lease_id, **result)
        with self.database.transaction() as connection:
            lifecycle.finish(connection, lease.trial_id, request)
        self.end(worker, attempt)

    def release(self, worker: Worker, attempt: Attempt, reason: str) -> None:
        lease = attempt.lease
        request = ReleaseRequest(attempt=lease.attempt, lease_id=lease.lease_id, reason=reason)  # type: ignore[arg-type]  # a literal
        with self.database.transaction() as connection:
            lifecycle.release(connection, lease.trial_id, request)
        self.end(worker, attempt)

    def end(self, worker: Worker, attempt: Attempt) -> None:
        attempt.ended = self.now
        self.drop(worker)
        end_finished_studies(self.database)

    def drop(self, worker: Worker) -> None:
        worker.attempt, worker.breaks_at, worker.epoch_ends = None, math.inf, math.inf
        worker.back_at = self.now + self.random.uniform(0, 10)


@pytest.fixture
def clock(database: Database) -> Clock:
    """The time of the database."""
    return Clock(database)


@pytest.mark.parametrize("histories", [12, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_every_second_counts_and_the_limit_holds(database: Database, clock: Clock, histories: int) -> None:
    @given(
        random=st.randoms(use_true_random=False),
        workers=st.integers(1, 4),
        max_failed=st.sampled_from([None, None, 3]),
    )
    @settings(max_examples=histories, deadline=None, suppress_health_check=list(HealthCheck))
    def play(random: Random, workers: int, max_failed: int | None) -> None:
        clock.set(0)
        history = begin(database, clock, random, workers, max_failed)
        try:
            history.run()
            check_end(history, max_failed)
        finally:
            with database.transaction() as connection:
                connection.execute(text("DELETE FROM study WHERE id = :id"), {"id": history.study.id})

    play()


def begin(database: Database, clock: Clock, random: Random, workers: int, max_failed: int | None) -> History:
    """Return the history of a new study with more suggestions than its hours last for."""
    budget = {"gpu_hours": LIMIT / 3600, "max_failed": max_failed}
    task = {"dataset": {"root": "/data"}, "epochs": EPOCHS}
    study = create(database, name=f"s{uuid4().hex}", budget=budget, early_stopping=PAUSING, task=task)
    with database.transaction() as connection:
        generation = studies.acquire_generator(connection, study.id, "test", 10 * LIMIT)
        assert generation is not None
        proposed = [Suggestion(params={"lr": 0.001 * n, "dropout": 0.1}, generator="sobol") for n in range(1, 61)]
        lifecycle.suggest(connection, study.id, proposed, owner="test", generation=generation)
    names = [Worker(name=f"w{place}") for place in range(workers)]
    return History(database=database, clock=clock, random=random, study=study, workers=names)


def check_end(history: History, max_failed: int | None) -> None:
    ended = history.row()
    assert ended.state in (StudyState.COMPLETED, StudyState.FAILED)
    failed = ended.counts.get(TrialState.FAILED, 0)
    assert (ended.state is StudyState.FAILED) == (ended.too_many_failed or (failed > 0 and not ended.with_epochs))
    if ended.too_many_failed:
        assert failed >= (max_failed or 20)
    else:
        assert ended.gpu_seconds_spent + 1e-3 >= LIMIT
        assert "GPU hours is used up" in (ended.state_reason or "")
    with history.database.transaction() as connection:
        for record in trials.records(connection, ended.id):
            if record.state is TrialState.STOPPED:
                value = history.values.get(record.id)
                assert record.metrics == (None if value is None else {"val_top1": value}), "no result is lost"
