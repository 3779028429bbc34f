"""The lifecycle against its reference, driven by Hypothesis on a real Postgres.

Steered, because that is what finds bugs: few trials alive, every lease ever issued may act again at any time, leases
and backoffs end by UPDATE instead of by waiting, and fences are forged from parts of real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID, uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, text

from hpo.errors import ConflictError, StaleLeaseError
from hpo.protocol import ClaimRequest, FinishRequest, Measurement, ReleaseRequest, ReportRequest
from hpo.service.finishing import end_finished_studies
from hpo.store import Database, finalists, lifecycle, studies, totals
from hpo.store.study_row import get_by_id
from hpo.trial import FINALISTS, REPLICATE, StudyState

from .model import StudyModel, TrialModel
from .sums import check_totals
from .world import make_spec, suggestion, worker

OWNERS = ("first", "second")
OUTCOMES = st.sampled_from(["completed", "stopped", "failed"])
VALUES = st.sampled_from([0.25, 0.75])
ANY = st.integers(0, 10**6)
"""Chooses among however many there are at the moment."""
FORGERY = st.sampled_from(["none", "none", "none", "attempt", "lease"])

T = TypeVar("T")
Handle = tuple[TrialModel, int, UUID]
_STUDY = text("""
SELECT state, generation, live_trials,
       (SELECT count(*) FROM trial WHERE trial.study_id = study.id AND trial.state <> 'withdrawn'
            AND trial.replicate_of IS NULL AND trial.origin IS NULL) AS counted
FROM study WHERE id = :id
""")
_ROWS = text("""
SELECT id, number, (params ->> 'lr')::float8 AS lr, state, attempt, retries, lease_id, cancel_requested AS cancel,
       (metrics ->> 'val_top1')::float8 AS metrics, failure_kind, gpu_seconds,
       held, replicate_of, priority,
       (SELECT count(*) FROM measurement WHERE trial_id = trial.id) AS measured
FROM trial WHERE study_id = :id ORDER BY id
""")


class LifecycleMachine(RuleBasedStateMachine):
    """One study; every step is one transaction, compared with the model."""

    def __init__(self, database: Database, opening: Callable[[LifecycleMachine], None] = lambda machine: None) -> None:
        super().__init__()
        self.database = database
        self.opening = opening
        self.handles: list[Handle] = []
        self.lr = 0.0

    def transact(self, action: Callable[[Connection], T]) -> T | None:
        """Return the result of an action in a transaction, None when the lease is stale."""
        try:
            with self.database.transaction() as connection:
                return action(connection)
        except StaleLeaseError:
            return None

    @initialize(budget=st.integers(2, 4), allowed_retries=st.integers(0, 2), pauses=st.booleans())
    def create(self, budget: int, allowed_retries: int, pauses: bool) -> None:
        spec = make_spec(
            f"s{uuid4().hex}",
            budget={"trials": budget},
            retry={"attempts": allowed_retries},
            early_stopping={"name": "asha", "pause": pauses, "startup_trials": 100},
        )
        row = self.transact(lambda connection: studies.create(connection, spec, actor="test"))
        assert row is not None
        self.study = StudyModel(id=row.id, name=row.name, budget=budget, allowed_retries=allowed_retries, pauses=pauses)
        self.acquire(OWNERS[0])
        self.suggest(1, OWNERS[0], 0)
        self.claim_with(uuid4())
        self.opening(self)

    # --- the optimizer

    @rule(
        action=st.sampled_from(["suggest", "suggest", "replace", "replace", "acquire", "expire"]),
        owner=st.sampled_from([OWNERS[0], *OWNERS]),
        age=st.sampled_from([0, 0, 1]),
        which=ANY,
    )
    def optimize(self, action: str, owner: str, age: int, which: int) -> None:
        if action == "suggest" and self.study.alive < 2:
            self.suggest(1 + which % 3, owner, age)
        elif action == "replace" and self.study.trials:
            self.replace(which, owner, age)
        elif action == "acquire":
            self.acquire(owner)
        elif action == "expire":
            self.expire_generator()

    def acquire(self, owner: str) -> None:
        study = self.study
        got = self.transact(lambda connection: studies.acquire_generator(connection, study.id, owner, 3600))
        free = study.owner is None or study.owner_expired
        if free:
            study.owner, study.generation, study.owner_expired = owner, study.generation + 1, False
        assert got == (study.generation if study.owner == owner else None)

    def expire_generator(self) -> None:
        self.sql("UPDATE study SET generator_expires_at = '2000-01-01' WHERE id = :study", study=self.study.id)
        self.study.owner_expired = True

    def suggest(self, count: int, owner: str, age: int) -> None:
        study, generation = self.study, self.study.generation - age
        proposed = [suggestion(self.next_lr()) for _ in range(count)]
        added = self.transact(
            lambda connection: lifecycle.suggest(connection, study.id, proposed, owner=owner, generation=generation)
        )
        room = min(count, study.budget - study.live) if study.may_suggest(owner, generation) else 0
        assert added is not None
        assert [record.number for record in added] == list(range(len(study.trials), len(study.trials) + room))
        for record, wanted in zip(added, proposed, strict=False):
            study.trials.append(TrialModel(id=record.id, number=record.number, lr=float(wanted.params["lr"])))

    def replace(self, which: int, owner: str, age: int) -> None:
        # Mostly one that waits: that is where it matters whether somebody has claimed it.
        waiting = [trial for trial in self.study.trials if trial.state == "suggested"] or self.study.trials
        trial = waiting[which % len(waiting)] if which % 4 else self.trial(which)
        generation, lr = self.study.generation - age, self.next_lr()
        replaced = self.transact(
            lambda connection: lifecycle.replace_suggestion(
                connection, trial.id, suggestion(lr), owner=owner, generation=generation
            )
        )
        unclaimed = trial.state == "suggested" and trial.attempt == 0 and trial.replicate_of is None
        assert replaced == (unclaimed and self.study.may_suggest(owner, generation))
        if replaced:
            trial.lr = lr

    @rule(
        which=ANY, generator=st.sampled_from([FINALISTS, REPLICATE]), ahead=st.sampled_from([None, None, 0, 0, 1, -1])
    )
    def replicate(self, which: int, generator: str, ahead: int | None) -> None:
        # Mostly one that was claimed: the others cannot be trained again.
        begun = [trial for trial in self.study.trials if trial.attempt] or self.study.trials
        if self.study.alive <= 2:
            self.train_again(begun[which % len(begun)] if which % 4 else self.trial(which // 4), generator, ahead)

    def train_again(self, asked: TrialModel, generator: str, ahead: int | None = None) -> None:
        study = self.study
        next_number = None if ahead is None else len(study.trials) + ahead
        added = self.transact(
            lambda connection: lifecycle.replicate(
                connection, study.id, asked.number, generator=generator, actor="test", next_number=next_number
            )
        )
        assert (added is not None) == study.may_replicate(asked, next_number)
        if added is not None:
            first = asked.number if asked.replicate_of is None else asked.replicate_of
            assert (added.number, added.replicate_of) == (len(study.trials), first)
            priority = int(generator == REPLICATE)
            again = TrialModel(id=added.id, number=added.number, lr=asked.lr, replicate_of=first, priority=priority)
            study.trials.append(again)

    # --- workers

    @rule()
    def claim(self) -> None:
        self.claim_with(uuid4())

    @rule(which=ANY)
    def claim_again(self, which: int) -> None:
        _, _, lease_id = self.handles[which % len(self.handles)]
        holder = next((trial for trial in self.study.trials if trial.lease_id == lease_id), None)
        lease = self.ask(lease_id)
        if holder is None or holder.state != "running":
            assert lease is None, "a lease id was good for a second claim"
            return
        assert (lease.trial_id, lease.attempt) == (holder.id, holder.attempt)
        holder.expired = False

    @rule(which=ANY, forgery=FORGERY, step=st.integers(1, 3), value=VALUES)
    def report(self, which: int, forgery: str, step: int, value: float) -> None:
        trial, attempt, lease_id = self.handle(which, forgery)
        sent = Measurement(step=step, metrics={"val_top1": value}, wall_seconds=1, gpu_seconds=1)
        request = ReportRequest(attempt=attempt, lease_id=lease_id, measurements=[sent])
        got = self.transact(lambda connection: lifecycle.report(connection, trial.id, request))
        assert (got is not None) == trial.owned_by(attempt, lease_id), "a report passed or broke the fence"
        if got is not None:
            new = (attempt, step) not in trial.measured
            assert (got.study_state, got.cancel) == (self.study.state_for(trial), trial.cancel)
            assert got.new_steps == ([step] if new else [])
            trial.measured.setdefault((attempt, step), value)
            trial.heartbeat()

    @rule(which=ANY, forgery=FORGERY, outcome=OUTCOMES, value=VALUES)
    def finish(self, which: int, forgery: str, outcome: str, value: float) -> None:
        trial, attempt, lease_id = self.handle(which, forgery)
        result = {"failure_kind": "error"} if outcome == "failed" else {"metrics": {"val_top1": value}}
        request = FinishRequest(attempt=attempt, lease_id=lease_id, outcome=outcome, **result)  # type: ignore[arg-type]  # a literal
        got = self.transact(lambda connection: lifecycle.finish(connection, trial.id, request))
        owned = trial.owned_by(attempt, lease_id)
        repeated = trial.accepted(attempt, lease_id, outcome, value)
        assert (got is not None) == (owned or repeated), "a result passed or broke the fence"
        if owned:
            trial.finish(outcome, value)

    @rule(which=ANY, forgery=FORGERY, reason=st.sampled_from(["drained", "paused", "crashed"]))
    def release(self, which: int, forgery: str, reason: str) -> None:
        trial, attempt, lease_id = self.handle(which, forgery)
        request = ReleaseRequest(attempt=attempt, lease_id=lease_id, reason=reason)  # type: ignore[arg-type]  # a literal

        def act(connection: Connection) -> bool:
            lifecycle.release(connection, trial.id, request)
            return True

        released = self.transact(act) is not None
        assert released == (trial.state == "running" and trial.owned_by(attempt, lease_id)), "release and the fence"
        if released and reason == "crashed":
            trial.lose(self.study.allowed_retries, keep_lease=False)
        elif released:
            searches = trial.replicate_of is None
            held = reason == "paused" and searches and self.study.pauses and self.study.state == "active"
            trial.give_back("suggested" if reason == "drained" else "paused", held=held)

    # --- time

    @rule(action=st.sampled_from(["expire", "reap", "both", "both", "end backoffs", "fold"]), which=ANY)
    def pass_time(self, action: str, which: int) -> None:
        if action in ("expire", "both"):
            self.expire(which)
        if action in ("reap", "both"):
            self.reap()
        if action == "end backoffs":
            self.end_backoffs()
        if action == "fold":
            self.transact(lambda connection: totals.fold(connection, most=1))

    def expire(self, which: int) -> None:
        running = [trial for trial in self.study.trials if trial.state == "running"]
        if running:
            trial = running[which % len(running)]
            self.sql("UPDATE trial SET lease_expires_at = '2000-01-01' WHERE id = :id", id=trial.id)
            trial.expired = True

    def reap(self) -> None:
        reaped = self.transact(lifecycle.reap)
        lost = [trial for trial in self.study.trials if trial.state == "running" and trial.expired]
        assert reaped == [trial.id for trial in lost]
        for trial in lost:
            trial.lose(self.study.allowed_retries, keep_lease=True)

    def end_backoffs(self) -> None:
        self.sql("UPDATE trial SET not_before = NULL WHERE study_id = :id", id=self.study.id)
        for trial in self.study.trials:
            trial.backing_off = False

    # --- people, and what the service does by itself

    @rule(
        action=st.sampled_from(
            [
                *(
                    "pause",
                    "resume",
                    "resume",
                    "cancel",
                    "discard",
                    "withdraw",
                    "settle",
                    "settle",
                    "stop",
                    "promote",
                    "close held",
                ),
                *("end search", "end search", "close"),
            ]
        ),
        which=ANY,
        rarely=st.integers(0, 3),
    )
    def intervene(self, action: str, which: int, rarely: int) -> None:
        if action in ("pause", "resume") and self.study.state in ("active", "paused"):
            self.move("paused" if action == "pause" else "active")
        elif action in ("cancel", "discard") and rarely % 2 == 0:
            (self.cancel if action == "cancel" else self.discard)(self.trial(which))
        elif action == "withdraw":
            self.withdraw()
        elif action == "settle":
            self.end_finished_studies()
        elif action == "promote":
            self.promote(self.trial(which))
        elif action == "close held":
            self.close_held()
        elif action == "close":
            self.close()
        elif action == "end search" and rarely and self.study.state in ("active", "paused"):
            self.end_search()
        elif action == "stop" and rarely == 0 and self.study.state in ("active", "paused"):
            self.stop()

    def stop(self) -> None:
        self.move("stopped")
        self.study.withdraw()
        self.study.close()

    def promote(self, trial: TrialModel) -> None:
        promoted = self.transact(
            lambda connection: lifecycle.promote(connection, self.study.id, [trial.id], actor="test")
        )
        assert promoted == int(trial.held and self.study.state == "active")
        if promoted:
            trial.held = False

    def close_held(self) -> None:
        study = self.study
        held = [trial for trial in study.trials if trial.held]
        done = study.state == "active" and study.live >= study.budget and len(held) == study.alive
        closed = self.transact(lambda connection: lifecycle.close_held(connection, study.id, actor="test"))
        assert closed == (len(held) if done else 0)
        for trial in held if done else []:
            trial.stop()

    def withdraw(self) -> None:
        gone = self.transact(lambda connection: lifecycle.withdraw(connection, self.study.id, actor="test"))
        assert gone == self.study.withdraw()

    def close(self) -> None:
        closed = self.transact(lambda connection: lifecycle.close(connection, self.study.id, actor="test"))
        assert closed == self.study.close()

    def end_search(self) -> None:
        study = self.study

        def begin(connection: Connection) -> bool:
            connection.execute(text("UPDATE study SET finalists = '{}' WHERE id = :id"), {"id": study.id})
            return finalists.begin(connection, get_by_id(connection, study.id), reason="all were tried", actor="test")

        begun = self.transact(begin)
        assert begun != study.search_ended
        if begun:
            study.end_search()

    def cancel(self, trial: TrialModel) -> None:
        self.transact(lambda connection: lifecycle.cancel(connection, trial.id, actor="test"))
        if trial.over:
            return
        trial.cancel = True
        if trial.state != "running" and trial.attempt == 0:
            trial.state = "withdrawn"
        elif trial.state != "running":
            trial.stop()

    def discard(self, trial: TrialModel) -> None:
        again = any(other.replicate_of == trial.number and other.state != "withdrawn" for other in self.study.trials)
        try:
            self.transact(lambda connection: lifecycle.discard(connection, trial.id, actor="test"))
        except ConflictError:
            assert not trial.over or trial.state == "withdrawn" or again
            return
        assert trial.over
        assert not again
        trial.state, trial.metrics, trial.failure_kind, trial.lease_id = "withdrawn", None, None, None

    def end_finished_studies(self) -> None:
        # Which finalist is trained next is not a matter of the lifecycle; here it is any, whenever it likes.
        with patch("hpo.service.finalists.advance", return_value=None):
            ended = end_finished_studies(self.database)
        assert ended == ([self.study.name] if self.study.end_finished_studies() else [])

    # --- what must hold after every step

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "study"):
            return
        with self.database.transaction() as connection:
            rows = connection.execute(_ROWS, {"id": self.study.id}).mappings().all()
            study = connection.execute(_STUDY, {"id": self.study.id}).one()
            check_totals(connection)
        assert (study.state, study.generation) == (self.study.state, self.study.generation)
        assert study.live_trials == study.counted, "what counts against the budget is not what the study says"
        assert [dict(row) for row in rows] == [_expected(trial) for trial in self.study.trials]

    def teardown(self) -> None:
        if hasattr(self, "study"):
            self.sql("DELETE FROM study WHERE id = :id", id=self.study.id)

    # --- shared by the rules

    def sql(self, statement: str, **values: Any) -> None:
        with self.database.transaction() as connection:
            connection.execute(text(statement), values)

    def move(self, target: str) -> None:
        self.transact(
            lambda connection: studies.set_state(connection, self.study.name, StudyState(target), actor="test")
        )
        self.study.state = target

    def ask(self, lease_id: UUID) -> Any:
        request = ClaimRequest(worker=worker(), lease_id=lease_id, study=self.study.name)
        return self.transact(lambda connection: lifecycle.claim(connection, request, lease_seconds=3600))

    def claim_with(self, lease_id: UUID) -> None:
        lease, expected = self.ask(lease_id), self.study.next_claim()
        if expected is None:
            assert lease is None
            return
        expected.claim(lease_id)
        assert lease is not None
        assert (lease.trial_id, lease.attempt, lease.params) == (expected.id, expected.attempt, {"lr": expected.lr})
        self.latest = (expected, expected.attempt, lease_id)
        self.handles.append(self.latest)

    def trial(self, which: int) -> TrialModel:
        return self.study.trials[which % len(self.study.trials)]

    def handle(self, which: int, forgery: str) -> Handle:
        # Every other time the lease that acted last acts again.
        if which % 2 == 0:
            self.latest = self.handles[which // 2 % len(self.handles)]
        trial, attempt, lease_id = self.latest
        if forgery == "attempt":
            attempt += 1 if which % 3 else -1
        if forgery == "lease":
            lease_id = uuid4()
        return trial, attempt, lease_id

    def next_lr(self) -> float:
        self.lr += 0.001
        return self.lr


def race(machine: LifecycleMachine) -> None:
    """Begin a study whose search is over: one of its trials and a finalist run."""
    machine.train_again(machine.study.trials[0], FINALISTS)
    machine.end_search()
    machine.claim()


def given_back(machine: LifecycleMachine) -> None:
    """Begin a study whose only trial waits again after an attempt."""
    machine.release(0, "none", "drained")


def stopped(machine: LifecycleMachine) -> None:
    """Begin a study that a person has stopped while a trial runs."""
    machine.stop()


def _expected(trial: TrialModel) -> dict[str, Any]:
    return {
        "id": trial.id,
        "number": trial.number,
        "lr": trial.lr,
        "state": trial.state,
        "attempt": trial.attempt,
        "retries": trial.retries,
        "lease_id": trial.lease_id,
        "cancel": trial.cancel,
        "metrics": trial.metrics,
        "failure_kind": trial.failure_kind,
        "gpu_seconds": float(len(trial.measured)),
        "held": trial.held,
        "replicate_of": trial.replicate_of,
        "priority": trial.priority,
        "measured": len(trial.measured),
    }
