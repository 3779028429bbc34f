"""Decisions from the marks in the store are those from whole curves, and every transition keeps the marks right."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from hpo.protocol import Lease, Measurement, ReportRequest
from hpo.spec import StudySpec
from hpo.stopping.decide import decide, promotions
from hpo.stopping.standing import judge, marks_of
from hpo.store import Database, lifecycle, marks, study_curves, trials
from hpo.store.studies import StudyRow
from hpo.trial import Decision, TrialState

from .world import (
    expire,
    finish,
    make_study,
    measurement,
    must_claim,
    reap,
    release,
    report,
    run,
    scalar,
    skip_backoff,
    suggest,
    until_somebody_waits,
)

T = TypeVar("T")

EPOCHS = 9
RULES: list[dict[str, Any]] = [
    {"name": "median", "startup_trials": 2},
    {"name": "percentile", "percentile": 20, "min_epochs": 2, "startup_trials": 1},
    {"name": "asha", "min_epochs": 1, "reduction": 2, "startup_trials": 0},
    {"name": "asha", "min_epochs": 1, "reduction": 3, "startup_trials": 1, "pause": True},
    {"name": "hyperband", "min_epochs": 1, "reduction": 2, "startup_trials": 1, "pause": True},
    {"name": "curves", "startup_trials": 1, "probability": 0.2, "protect": 0.1},
    {"name": "curves", "startup_trials": 1, "probability": 0.2, "protect": 0.1, "pause": True},
    {"name": "patient", "patience": 2, "startup_trials": 1},
    {"name": "threshold", "lower": 0.3, "startup_trials": 0},
]
_TRIAL = text("""
INSERT INTO trial (study_id, number, params, generator, state, attempt, lease_id, lease_worker, lease_seconds,
                   lease_expires_at, started_at, finished_at, metrics, failure_kind, replicate_of)
VALUES (:study_id, :number, '{"lr": 0.1}', 'sobol', CAST(:state AS text), 2, gen_random_uuid(), 'w', 60,
        CASE WHEN :state = 'running' THEN now() END, now(),
        CASE WHEN :state IN ('completed', 'stopped', 'failed') THEN now() END, CAST(:metrics AS jsonb),
        CASE WHEN :state = 'failed' THEN 'diverged' END, :replicate_of)
RETURNING id
""")
_MEASUREMENT = text("""
INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
VALUES (:trial_id, :attempt, :step, CAST(:metrics AS jsonb), 1, 1)
""")
_EPOCHS = "UPDATE trial SET epochs_done = COALESCE((SELECT max(step) FROM measurement WHERE trial_id = trial.id), 0)"
STATES = ["running"] * 4 + ["paused"] * 4 + ["completed"] * 5 + ["stopped", "failed"]
EXPLORING = ["running"] + ["paused"] * 20 + ["completed"] * 2 + ["failed"]
"""As `curves` with pauses leaves a study: little is finished, so that one more may be."""


def _fill(connection: Connection, study: StudyRow, rng: random.Random) -> None:
    """Add trials with few different values, epochs without a value, and epochs of two attempts."""
    explores = getattr(study.spec.early_stopping, "pause", False) and study.spec.early_stopping.name == "curves"
    for number in range(rng.randint(8, 25) if explores else rng.randint(1, 14)):
        state = rng.choice(EXPLORING if explores else STATES)
        values = {"study_id": study.id, "number": number, "state": state, "metrics": None, "replicate_of": None}
        if state == "completed":
            values["metrics"] = f'{{"val_top1": {rng.randint(0, 4) / 4}}}' if rng.random() < 0.9 else '{"val_loss": 1}'
        if number and rng.random() < 0.1:
            values["replicate_of"] = 0
        trial_id = connection.execute(_TRIAL, values).scalar_one()
        last = EPOCHS if state == "completed" else rng.randint(0, 3 if explores else EPOCHS - 1)
        lost = last + 1 if explores else rng.randint(1, EPOCHS)
        for attempt, steps in ((1, range(1, lost)), (2, range(1, last + 1))):
            for step in steps:
                if attempt == 1 and rng.random() < 0.7:
                    continue
                name = "val_loss" if rng.random() < 0.15 else "val_top1"
                row = {"trial_id": trial_id, "attempt": attempt, "step": step}
                value = rng.randint(0, 2) / 2 if rng.random() < 0.8 else rng.random()  # mostly ties
                connection.execute(_MEASUREMENT, {**row, "metrics": f'{{"{name}": {value!r}}}'})
    connection.exec_driver_sql(_EPOCHS)


def _spec_changes(rule: dict[str, Any], direction: str, last_epochs: int) -> dict[str, Any]:
    objective = {"metric": "val_top1", "direction": direction, "last_epochs": last_epochs}
    task = {"dataset": {"root": "/data"}, "epochs": EPOCHS}
    return {"objectives": [objective], "task": task, "early_stopping": rule}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['name']}{rule.get('pause', '')}")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), direction=st.sampled_from(["maximize", "minimize"]), last=st.sampled_from([1, 1, 3]))
def test_marks_decide_as_whole_curves_do(
    database: Database, rule: dict[str, Any], seed: int, direction: str, last: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - a game, not a secret
    with database.transaction() as connection:
        connection.exec_driver_sql("TRUNCATE study CASCADE")
    # In some studies every trial has begun: `curves` then lets all go on that have a chance.
    study = make_study(database, **_spec_changes(rule, direction, last), budget={"trials": rng.choice([3, 100])})
    with database.transaction() as connection:
        _fill(connection, study, rng)
        connection.exec_driver_sql("UPDATE study SET marked = false")
        marks.complete(connection, study.id)
        records = trials.records(connection, study.id)
        for record in records:
            if record.state in (TrialState.RUNNING, TrialState.PAUSED):
                own = marks.own(connection, record.id)
                assert own is not None
                rivals = marks.StoredRivals(connection, own)
                assert judge(study.spec, own.record, rivals) is decide(study.spec, record, records)
        if rule.get("pause"):
            assert marks.promotable(connection, study.id, study.spec) == promotions(study.spec, records)


def _during(database: Database, lease: Lease, epoch: Measurement, call: Callable[[], T]) -> T:
    """Return what a call gives that waits for a report of `epoch`, which is not committed yet when it begins."""
    request = ReportRequest(attempt=lease.attempt, lease_id=lease.lease_id, measurements=[epoch])
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            lifecycle.report(connection, lease.trial_id, request)
            answer = pool.submit(call)
            until_somebody_waits(connection)
        return answer.result(timeout=30)


def _peak(database: Database, lease: Lease) -> Any:
    query = "SELECT max(value) FROM mark WHERE trial_id = :id AND board = 'peak'"
    with database.transaction() as connection:
        return scalar(connection, query, id=lease.trial_id)


def test_a_report_that_waits_for_its_earlier_copy_decides_by_what_that_one_brought(database: Database) -> None:
    study = make_study(database, **_spec_changes(RULES[0], "maximize", 1))
    suggest(database, study)
    lease = must_claim(database)
    report(database, lease, measurement(1, 0.1), measurement(2, 0.2))
    again = partial(report, database, lease, measurement(3, 0.9), measurement(4, 0.4))
    found = _during(database, lease, measurement(3, 0.9), again)
    assert found.own is not None
    assert found.new_steps == [4]
    assert {step: row["val_top1"] for step, row in found.own.record.curve.items()} == {1: 0.1, 2: 0.2, 3: 0.9, 4: 0.4}
    assert _peak(database, lease) == 0.9


def test_a_finish_that_waits_for_a_report_keeps_the_marks_of_its_epoch(database: Database) -> None:
    study = make_study(database, **_spec_changes(RULES[0], "maximize", 1))
    suggest(database, study)
    lease = must_claim(database)
    report(database, lease, measurement(1, 0.1))
    _during(database, lease, measurement(2, 0.9), partial(finish, database, lease))
    assert _peak(database, lease) == 0.9


@pytest.mark.parametrize("rule", [RULES[3], RULES[6]], ids=["asha", "curves"])
def test_the_game_of_the_property_has_all_answers(database: Database, rule: dict[str, Any]) -> None:
    study = make_study(database, **_spec_changes(rule, "maximize", 1))
    found: set[Decision] = set()
    promoted = kept = 0
    for seed in range(20):
        with database.transaction() as connection:
            connection.exec_driver_sql("DELETE FROM trial")
            _fill(connection, study, random.Random(seed))  # noqa: S311 - a game, not a secret
            records = trials.records(connection, study.id)
            found |= {decide(study.spec, record, records) for record in records}
            paused = [record for record in records if record.state is TrialState.PAUSED and not record.replicate_of]
            promoted += len(promotions(study.spec, records))
            kept += len(paused) - len(promotions(study.spec, records))
    assert found == {Decision.CONTINUE, Decision.PAUSE}
    assert min(promoted, kept) >= 5, (promoted, kept)


def _stored(connection: Connection, study: StudyRow) -> dict[int, set[tuple[Any, ...]]]:
    rows = connection.execute(
        text("SELECT trial_id, board, place, value, own FROM mark WHERE study_id = :id"), {"id": study.id}
    )
    found: dict[int, set[tuple[Any, ...]]] = {}
    for trial_id, *rest in rows:
        found.setdefault(trial_id, set()).add(tuple(rest))
    return found


def _computed(connection: Connection, study: StudyRow, spec: StudySpec) -> dict[int, set[tuple[Any, ...]]]:
    found = {
        record.id: {(mark.board, mark.place, mark.value, mark.own) for mark in marks_of(spec, record)}
        for record in trials.records(connection, study.id)
    }
    return {trial_id: those for trial_id, those in found.items() if those}


@pytest.mark.parametrize("rule", [RULES[0], RULES[3]], ids=["median", "asha"])
@pytest.mark.parametrize("last_epochs", [1, 3])
def test_every_transition_keeps_the_marks(database: Database, rule: dict[str, Any], last_epochs: int) -> None:
    study = make_study(database, **_spec_changes(rule, "maximize", last_epochs), retry={"attempts": 1})
    suggest(database, study, 9)

    def check() -> None:
        with database.transaction() as connection:
            stored = _stored(connection, study)
            assert stored == _computed(connection, study, study.spec)

    def begun(*values: float) -> Any:
        lease = must_claim(database, study)
        for step, value in enumerate(values, start=1):
            report(database, lease, measurement(step, value))
            check()
        return lease

    for values, outcome, metrics in (
        ((0.1, 0.4, 0.3), "completed", {"metrics": {"val_top1": 0.5}}),
        ((0.2,), "stopped", {"metrics": {"val_top1": 0.9}}),
        ((0.6, 0.1), "failed", {"failure_kind": "error"}),
    ):
        finish(database, begun(*values), outcome, **metrics)
        check()
    cancelled = begun(0.5)
    with database.transaction() as connection:
        lifecycle.cancel(connection, cancelled.trial_id, actor="test")
    release(database, cancelled, "drained")
    check()
    lost = begun(0.3, 0.8)
    expire(database, lost.trial_id)
    reap(database)
    skip_backoff(database, lost.trial_id)
    again = must_claim(database, study)
    assert again.trial_id == lost.trial_id
    report(database, again, measurement(1, 0.9))
    check()
    with database.transaction() as connection:
        lifecycle.cancel(connection, again.trial_id, actor="test")
    expire(database, again.trial_id)
    reap(database)
    check()
    waits = begun(0.4, 0.9)
    release(database, waits, "drained")
    with database.transaction() as connection:
        lifecycle.cancel(connection, waits.trial_id, actor="test")
    check()
    release(database, begun(0.3, 0.7), "paused")  # left for the end of the study
    check()
    run(database, "UPDATE study SET budget_reached_at = now()")
    with database.transaction() as connection:
        lifecycle.withdraw(connection, study.id, actor="test")
        lifecycle.close(connection, study.id, actor="test")
    check()
    with database.transaction() as connection:
        states = {record.state for record in trials.records(connection, study.id)}
        assert len(_stored(connection, study)) == 7, "one of those that have begun for each"
    assert states == {TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED, TrialState.WITHDRAWN}


def test_a_study_of_an_earlier_release_gets_its_marks_once(database: Database) -> None:
    study = make_study(database, **_spec_changes(RULES[2], "maximize", 1))
    suggest(database, study, 2)
    first, second = must_claim(database, study), must_claim(database, study, name="worker-2")
    report(database, first, measurement(1, 0.9))
    run(database, "DELETE FROM mark")
    run(database, "UPDATE study SET marked = false")
    report(database, second, measurement(1, 0.1))
    with database.transaction() as connection:
        marks.complete(connection, study.id)
        assert set(_stored(connection, study)) == {first.trial_id, second.trial_id}
        connection.exec_driver_sql("DELETE FROM mark")
        marks.complete(connection, study.id)
        assert not _stored(connection, study), "they are complete already"


def test_a_report_of_an_unreadable_study_waits_for_nobody_and_is_marked_later(database: Database) -> None:
    study = make_study(database, **_spec_changes(RULES[2], "maximize", 1))
    suggest(database, study, 2)
    lease = must_claim(database, study)
    run(database, "UPDATE study SET spec = spec || '{\"of_a_later_release\": 1}'")
    with database.transaction() as other:
        # As whoever completes the marks: the study first, and then it would wait for the trial of the report.
        other.exec_driver_sql("SELECT FROM study FOR NO KEY UPDATE")
        with database.transaction() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '2s'")
            request = ReportRequest(attempt=1, lease_id=lease.lease_id, measurements=[measurement(1, 0.9)])
            lifecycle.report(connection, lease.trial_id, request)
    run(database, "UPDATE study SET spec = spec - 'of_a_later_release'")
    with database.transaction() as connection:
        own = marks.own(connection, lease.trial_id)
        assert own is not None
        assert not own.is_marked
        marks.complete(connection, study.id)
        assert _stored(connection, study) == _computed(connection, study, study.spec) != {}
        connection.exec_driver_sql("DELETE FROM mark")
        marks.complete(connection, study.id)
        assert not _stored(connection, study), "they are complete now"


def test_a_model_of_curves_is_kept_until_the_study_has_grown(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(database, **_spec_changes({"name": "curves"}, "maximize", 1))
    suggest(database, study, 12)
    leases = [must_claim(database, study) for _ in range(12)]
    for lease in leases:
        report(database, lease, *(measurement(step, 0.1 * step) for step in range(1, 9)))

    def read() -> object:
        with database.transaction() as connection:
            return study_curves.read(connection, study.id, study.uuid, study.spec)

    assert read() is not read(), "a small study is read anew"
    monkeypatch.setattr(study_curves, "EXACT_TRIALS", 11)
    kept = read()
    report(database, leases[0], measurement(9, 0.9))  # the 97th epoch: 1 % more
    assert read() is kept
    report(database, leases[1], measurement(9, 0.9))  # 2.1 % more
    assert read() is not kept


def test_ends_of_waiting_trials_are_predicted_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(database, **_spec_changes(RULES[6], "maximize", 1), budget={"trials": 3})
    monkeypatch.setattr(study_curves, "EXACT_TRIALS", 0)
    with database.transaction() as connection:
        _fill(connection, study, random.Random(4))  # noqa: S311 - a game, not a secret
        connection.exec_driver_sql("UPDATE study SET marked = false")
        marks.complete(connection, study.id)
        records = trials.records(connection, study.id)
        first = marks.promotable(connection, study.id, study.spec)
        assert first == promotions(study.spec, records) != []
        monkeypatch.delattr(study_curves, "_values")
        assert marks.promotable(connection, study.id, study.spec) == first, "without a look at any curve"
