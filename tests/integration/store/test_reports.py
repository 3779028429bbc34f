"""Reports and results: nothing twice, nothing lost, the GPU time of every attempt counted."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from hpo.store import Database, answers, events, trials, workers
from hpo.trial import FailureKind, StudyState, TrialState

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
    scalar,
    skip_backoff,
    study_row,
    suggest,
    worker,
)


def test_a_report_sent_twice_counts_once(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    assert report(database, lease, measurement(1), measurement(2)).new_steps == [1, 2]
    assert report(database, lease, measurement(2, 0.9), measurement(3)).new_steps == [3]
    found = record(database, lease.trial_id)
    assert found.curve == {step: {"val_top1": 0.5} for step in (1, 2, 3)}
    assert (found.gpu_seconds, found.epochs_done, found.last_step) == (6.0, 3, 3)


def test_gpu_time_adds_up_over_attempts_and_the_last_attempt_makes_the_curve(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    first = must_claim(database)
    report(database, first, measurement(1, 0.1), measurement(2, 0.2), checkpoint="/c/1")
    release(database, first, "drained")
    second = must_claim(database)
    assert (second.checkpoint, second.epochs_done) == ("/c/1", 2)
    report(database, second, measurement(2, 0.3), measurement(3, 0.4))
    found = finish(database, second)
    assert found.curve == {1: {"val_top1": 0.1}, 2: {"val_top1": 0.3}, 3: {"val_top1": 0.4}}
    assert found.gpu_seconds == 8.0
    assert study_row(database).gpu_seconds_spent == 8.0


def test_peak_memory_only_grows(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    report(database, lease, peak_memory_bytes=500)
    report(database, lease, peak_memory_bytes=300)
    report(database, lease)
    assert record(database, lease.trial_id).peak_memory_bytes == 500


def test_a_report_returns_the_state_of_the_study(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    run(database, "UPDATE study SET state = 'paused'")
    assert report(database, lease).study_state is StudyState.PAUSED
    run(database, "UPDATE study SET state = 'active', budget_reached_at = clock_timestamp()")
    assert report(database, lease).study_state is StudyState.STOPPED


def test_the_result_keeps_what_the_export_needs(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    finish(database, lease, checkpoint="/c/9", dataset_version="v1", environment={"torch": "2.11"})
    with database.transaction() as connection:
        kept = trials.environment_of(connection, lease.trial_id)
    assert (kept.checkpoint, kept.dataset_version, kept.environment) == ("/c/9", "v1", {"torch": "2.11"})


def test_a_failure_keeps_its_kind_and_message(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    failed = finish(database, must_claim(database), "failed", failure_kind="oom", failure_message="large\ntrace")
    assert (failed.state, failed.failure_kind) == (TrialState.FAILED, FailureKind.OOM)
    assert failed.failure_message == "large\ntrace"
    assert failed.metrics is None


def test_large_and_small_numbers_come_back_as_they_went(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    values = {"a": 1e100, "b": 5e-324, "c": 0.1 + 0.2, "d": -0.0, "e": 3.0, "f": 1e22}
    finish(database, lease, metrics=values)
    metrics = record(database, lease.trial_id).metrics
    assert metrics == values
    assert all(isinstance(value, float) for value in metrics.values())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial SET state = 'lost'",
        "UPDATE trial SET state = 'running'",
        "UPDATE trial SET state = 'failed', finished_at = now()",
        "UPDATE trial SET failure_kind = 'oom'",
        "UPDATE trial SET state = 'completed', finished_at = now(), attempt = 1, started_at = now()",
        "UPDATE trial SET attempt = -1",
        "UPDATE trial SET attempt = 1",
        "UPDATE trial SET retries = 1",
        "UPDATE trial SET lease_id = gen_random_uuid()",
        "UPDATE trial SET lease_expires_at = now()",
        "UPDATE trial SET finished_at = now()",
        "UPDATE trial SET gpu_seconds = 'NaN'",
        "UPDATE trial SET predicted_mean = 'NaN'",
        "UPDATE trial SET predicted_sd = -1",
        "UPDATE trial SET params = '[]'",
        "UPDATE trial SET number = 0",
        'INSERT INTO measurement SELECT id, 1, 1, \'{"a": "NaN"}\', 1, 1 FROM trial',
        "INSERT INTO measurement SELECT id, 1, 1, '{\"a\": null}', 1, 1 FROM trial",
        "INSERT INTO measurement SELECT id, 1, 0, '{}', 1, 1 FROM trial",
        "INSERT INTO measurement SELECT id, 1, 1, '{}', 1, 'Infinity' FROM trial",
        "INSERT INTO measurement VALUES (0, 1, 1, '{}', 1, 1)",
        "UPDATE study SET state = 'completed'",
        "UPDATE study SET finished_at = now()",
        "UPDATE study SET live_trials = 3",
        "UPDATE study SET name = 'other'",
        "UPDATE study SET generator_owner = NULL",
        "INSERT INTO api_token (name, hash, scopes) VALUES ('t', 'short', '{admin}')",
        "INSERT INTO api_token (name, hash, scopes) SELECT 't', sha256('x'), '{root}'",
        "INSERT INTO api_token (name, hash, scopes, kind) SELECT 't', sha256('x'), '{read}', 'session'",
    ],
)
def test_the_tables_refuse_what_cannot_be(database: Database, statement: str) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    with pytest.raises(IntegrityError):
        run(database, statement)


def test_the_best_is_feasible_and_may_have_been_stopped(database: Database) -> None:
    study = make_study(database, constraints=["epoch_seconds <= 10"])
    suggest(database, study, 5)
    results = [
        ("stopped", {"val_top1": 0.99, "epoch_seconds": 1.0}),
        ("completed", {"val_top1": 0.9, "epoch_seconds": 11.0}),
        ("completed", {"val_top1": 0.6, "epoch_seconds": 10.0}),
        ("completed", {"val_top1": 0.6, "epoch_seconds": 9.0}),
        ("completed", {"val_top1": 0.8}),
    ]
    best = []
    for outcome, metrics in results:
        finish(database, must_claim(database), outcome, metrics=metrics)
        with database.transaction() as connection:
            found = answers.best(connection, study)
        best.append(found.number if found else None)
    assert best == [0, 0, 0, 0, 0]


def test_best_of_a_minimized_metric(database: Database) -> None:
    study = make_study(database, objectives=[{"metric": "val_loss"}])
    suggest(database, study, 2)
    with database.transaction() as connection:
        assert answers.best(connection, study) is None
    for loss in (0.3, 0.2):
        finish(database, must_claim(database), metrics={"val_loss": loss})
    with database.transaction() as connection:
        found = answers.best(connection, study)
    assert found is not None
    assert found.metrics == {"val_loss": 0.2}


def test_demand_counts_the_workers_that_may_ask(database: Database) -> None:
    study = make_study(database)
    make_study(database, "other")
    with database.transaction() as connection:
        workers.seen(connection, worker("any"))
        workers.seen(connection, worker("ours"), study="study")
        workers.seen(connection, worker("theirs"), study="other")
        workers.seen(connection, worker("gone"))
        assert trials.demand(connection, study.id) == 3
        connection.execute(
            text("UPDATE worker SET last_seen = clock_timestamp() - interval '61 s' WHERE name = 'gone'")
        )
        assert trials.demand(connection, study.id) == 2


def test_workers_are_listed_with_what_they_run(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database, name="busy")
    claim(database, name="idle")
    with database.transaction() as connection:
        listed = workers.list_all(connection)
    assert [(row.name, row.trial_id) for row in listed] == [("idle", None), ("busy", lease.trial_id)]
    assert all(0 <= row.seconds_since_seen < 60 for row in listed)


def test_a_reader_of_the_stream_misses_no_event_of_a_slow_transaction(database: Database) -> None:
    study = make_study(database)
    with database.transaction() as slow:
        events.append(slow, study.id, None, "slow", "test", {})
        slow.execute(text("SELECT 1"))  # an event is sent with the statement after it
        with database.transaction() as quick:
            events.append(quick, study.id, None, "quick", "test", {})
        with database.transaction() as reader:
            before = events.list_since(reader, study.id)
        assert [event.kind for event in before] == ["study.created"]
    with database.transaction() as reader:
        after = events.list_since(reader, study.id, before[-1].id)
        assert sorted(event.kind for event in after) == ["quick", "slow"]
        assert events.list_since(reader, study.id, after[-1].id) == []
        assert events.list_since(reader, study.id, after[0].id) == after[1:]
        assert events.list_since(reader, study.id, limit=1) == before


def test_what_happens_is_recorded_with_who_did_it(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database, name="w")
    report(database, lease, measurement(1))
    finish(database, lease)
    end_finished_studies(database)
    with database.transaction() as connection:
        told = [(event.kind, event.actor) for event in events.list_since(connection, study.id)]
    assert told == [
        ("study.created", "test"),
        ("trial.suggested", "optimizer-1"),
        ("trial.claimed", "w"),
        ("trial.measured", "w"),
        ("trial.completed", "w"),
    ]


def test_many_trials_with_curves_are_read_in_order(database: Database) -> None:
    study = make_study(database)
    run(
        database,
        """
        INSERT INTO trial (study_id, number, params, generator)
        SELECT :study, n, '{"lr": 0.5}', 'x' FROM generate_series(0, 149) n
        """,
        study=study.id,
    )
    run(
        database,
        """
        INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
        SELECT id, 1, step, '{"val_top1": 0.5}', 1, 1 FROM trial, generate_series(1, 20) step
        """,
    )
    with database.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM measurement") == 3_000
        read = trials.records(connection, study.id)
    assert [record.number for record in read] == list(range(150))
    assert all(list(record.curve) == list(range(1, 21)) for record in read)


def test_an_attempt_is_kept_with_its_worker_its_time_and_its_end(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    first = must_claim(database, name="a")
    expire(database, first.trial_id)
    reap(database)
    skip_backoff(database, first.trial_id)
    report(database, first)  # it was not dead
    assert record(database, first.trial_id).lost_on == ()
    expire(database, first.trial_id)
    reap(database)
    skip_backoff(database, first.trial_id)
    second = must_claim(database, name="b")
    release(database, second, "drained")
    third = must_claim(database, name="a")
    release(database, third, "crashed")
    skip_backoff(database, first.trial_id)
    fourth = must_claim(database, name="c")
    assert record(database, first.trial_id).lost_on == ("a", "a")
    finish(database, fourth)
    with database.transaction() as connection:
        rows = connection.execute(
            text("SELECT attempt, worker, ended_as, claimed_at <= seen_at, seen_at <= ended_at FROM attempt ORDER BY 1")
        ).all()
    assert [tuple(row) for row in rows] == [
        (1, "a", "expired", True, True),
        (2, "b", "drained", True, True),
        (3, "a", "crashed", True, True),
        (4, "c", "completed", True, True),
    ]
