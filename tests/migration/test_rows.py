"""Rows mean the same after the tables have changed: upgraded from every revision, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from hpo.protocol import ClaimRequest, Measurement, ReportRequest, WorkerInfo
from hpo.spec import stored_spec
from hpo.store import Database, answers, earlier, events, lifecycle, migrate, studies, tokens, trials, workers
from hpo.store.database import make_engine
from hpo.store.migrate import migration_config
from hpo.trial import FailureKind, StudyState, TrialState

from ..integration.store.sums import check_totals
from .rows import CURVES, LEASE, SPEC, STUDIES, TRIALS, fill, params_of, revisions_with_rows

REVISIONS = revisions_with_rows()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture
def filled(empty_database_url: str, request: pytest.FixtureRequest) -> str:
    """The address of a database with the tables and the rows of a revision."""
    migrate(empty_database_url, revision=request.param)
    with connected(empty_database_url) as connection:
        fill(connection, request.param)
    return empty_database_url


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def _check(url: str, revision: str) -> None:
    """Read everything that `fill` wrote at `revision` through the library of today."""
    with opened(url) as database:
        with database.transaction() as connection:
            _check_studies(connection, revision)
            _check_trials(connection)
            _check_the_rest(connection, revision)
            check_totals(connection)
        _check_what_goes_on(database, revision)


def _check_studies(connection: Connection, revision: str) -> None:
    found = {study.name: study for study in studies.list_all(connection)}
    assert {name: study.state for name, study in found.items()} == {name: StudyState(name) for name in STUDIES}
    assert found["paused"].state_reason == "three invalid trials"
    assert len({study.uuid for study in found.values()}) == len(STUDIES)
    active = found["active"]
    assert active.spec == stored_spec(SPEC)
    assert active.spec.objectives[0].metric == "val_top1"
    assert active.spec.task.base["batch_size"] == 4
    # One is withdrawn, and since there are replicates one of them does not count.
    assert active.live_trials == len(TRIALS) - 1 - (revision >= "0006")
    assert (active.replicates, active.finalists is not None) == ((1, True) if revision >= "0006" else (0, False))
    epochs = sum(trial.get("gpu_seconds", 0.0) for trial in TRIALS)
    # Of the trials nothing else is known; the running one counts up to now, a quarter of its lease at most.
    assert epochs <= active.gpu_seconds_spent <= epochs + 15
    # Trial 1 was stopped by the rule after 3 of 10 epochs of a second each; trial 2 by a person, which saves nothing.
    assert active.gpu_seconds_saved == 7.0
    waiting = [{"lr": 0.02}] if revision >= "0003" else []
    assert list(active.waiting_guesses) == waiting, "of two guesses one has become trial 7"


def _check_trials(connection: Connection) -> None:
    study = studies.get(connection, "active")
    found = {record.number: record for record in trials.records(connection, study.id)}
    assert list(found) == list(range(len(TRIALS)))
    for number, given in enumerate(TRIALS):
        record = found[number]
        assert record.state is TrialState(given["state"])
        assert record.params == params_of(number)
        assert record.metrics == given.get("metrics")
        assert record.attempt == given.get("attempt", 0)
        kind = given.get("failure_kind")
        assert record.failure_kind is (None if kind is None else FailureKind(kind))
        assert record.failure_message == given.get("failure_message")
        assert (record.epochs_done, record.gpu_seconds) == (given.get("epochs_done", 0), given.get("gpu_seconds", 0.0))
        assert record.peak_memory_bytes == given.get("peak")
        assert (record.predicted_mean, record.predicted_sd) == (0.5, 0.25)
        last = {step: {"val_top1": value} for _, step, value in CURVES.get(number, [])}
        assert record.curve == last, "of a step that two attempts measured the last stands"
        assert (record.finished_at is not None) is record.state.is_terminal
    best = answers.best(connection, study)
    assert best is not None
    assert best.number == 0
    ran = trials.environment_of(connection, best.id)
    assert (ran.checkpoint, ran.environment) == ("/c/0.pt", {"torch": "2.11"})


def _check_the_rest(connection: Connection, revision: str) -> None:
    study = studies.get(connection, "active")
    (worker,) = workers.list_all(connection)
    assert (worker.name, worker.gpu_name, worker.memory_bytes) == ("w1", "A100", 85899345920)
    kept = [(token.name, sorted(token.scopes), token.revoked_at is None) for token in tokens.list_all(connection)]
    assert kept == [("laptop", ["admin"], True), ("old", ["read"], False), ("browser", ["read"], True)]
    happened = [event.kind for event in events.list_since(connection, study.id)]
    assert happened == ["study.created", *["trial.suggested"] * len(TRIALS)]
    taken = [(trial.study, trial.params, trial.metrics) for trial in earlier.read(connection, study.id)]
    metrics = {"val_top1": 0.5, "peak_memory_gib": 4.0}
    assert taken == ([("before", {"lr": 0.1, "dropout": 0.2}, metrics)] if revision >= "0004" else [])


def _check_what_goes_on(database: Database, revision: str) -> None:
    """The running trial reports under its old lease, and what waits is claimed in the order that was promised."""
    with database.transaction() as connection:
        study = studies.get(connection, "active")
        running = next(record for record in trials.records(connection, study.id) if record.number == 4)
        report = ReportRequest(
            attempt=1,
            lease_id=UUID(LEASE.format(4)),
            measurements=[Measurement(step=3, metrics={"val_top1": 0.625}, wall_seconds=1, gpu_seconds=1)],
        )
        assert lifecycle.report(connection, running.id, report).new_steps == [3]
    info = WorkerInfo(name="w2", host="here", pid=1, device="cpu", memory_bytes=2**40)
    claimed: list[int] = []
    while True:
        with database.transaction() as connection:
            lease = lifecycle.claim(connection, ClaimRequest(worker=info, lease_id=uuid4()), lease_seconds=60)
        if lease is None:
            break
        claimed.append(lease.number)
    # What has run before, then what a person asked for, then in order; a held trial waits for its promotion.
    expected = {"0001": [5, 8, 6, 7], "0002": [8, 6, 7]}.get(revision, [8, 7, 6])
    assert claimed == expected


def test_every_revision_is_tried_with_rows() -> None:
    """A revision that changes rows adds its kind of them to `rows`; one that adds none is upgraded over all others."""
    script = ScriptDirectory.from_config(migration_config())
    known = [entry.revision for entry in script.walk_revisions()]
    assert set(REVISIONS) <= set(known)
    assert min(known) == REVISIONS[0]


@pytest.mark.parametrize(("filled", "revision"), [(name, name) for name in REVISIONS], indirect=["filled"])
def test_rows_of_every_revision_mean_the_same_today(filled: str, revision: str) -> None:
    migrate(filled)
    _check(filled, revision)


@pytest.mark.parametrize(("filled", "revision"), [(name, name) for name in REVISIONS], indirect=["filled"])
def test_rows_survive_the_way_back(filled: str, revision: str) -> None:
    """Down to the revision they were made at, where they are as they were, and up again."""
    before = _everything(filled)
    migrate(filled)
    _downgrade(filled, revision)
    assert _everything(filled) == before
    migrate(filled)
    _check(filled, revision)


@pytest.mark.parametrize("filled", [REVISIONS[-1]], indirect=True)
@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_an_older_release_can_work_with_what_a_newer_one_left(filled: str, revision: str) -> None:
    """What the older tables cannot say is lost, and nothing else."""
    before = _everything(filled)
    _downgrade(filled, revision)
    after = _everything(filled)
    assert after["trial"].keys() == before["trial"].keys()
    for id_, row in after["trial"].items():
        newer = before["trial"][id_]
        assert {key: value for key, value in row.items() if key != "priority"} == {
            key: value for key, value in newer.items() if key in row and key != "priority"
        }
        has_run = row["state"] in ("suggested", "paused") and row["attempt"] > 0
        fresh = 0 if revision < "0003" else newer["priority"]
        assert row["priority"] == ((1 if revision < "0003" else 2) if has_run else fresh)
    for table in ("measurement", "event", "api_token"):
        assert after[table] == before[table]


def _downgrade(url: str, revision: str) -> None:
    with connected(url) as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def _everything(url: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of all tables, by table and by the text of the row that names it."""
    with connected(url) as connection:
        names = [
            row.tablename
            for row in connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        ]
        return {
            name: {
                str(row.get("id") or row.get("name") or json.dumps(row, sort_keys=True)): row
                for (row,) in connection.execute(text(f'SELECT to_jsonb(t) FROM "{name}" AS t'))  # noqa: S608 - a table's name
            }
            for name in names
            if name != "alembic_version"
        }


def test_attempts_are_rebuilt_from_events(empty_database_url: str) -> None:
    """A completed trial whose first attempt was lost after 20 s, and that took 40 s in the second; a running one."""
    migrate(empty_database_url, revision="0005")
    with connected(empty_database_url) as connection:
        fill(connection, "0005")
        for number, attempt, worker, kind, seconds in (
            (0, 1, "w1", "claimed", 0),
            (0, 1, "w1", "measured", 20),
            (0, None, "reaper", "expired", 80),
            (0, 2, "w2", "claimed", 100),
            (0, 2, "w2", "completed", 140),
            (4, 1, "w1", "claimed", 200),
            (4, 1, "w1", "measured", 230),
        ):
            values = {"number": number, "kind": f"trial.{kind}", "actor": worker, "seconds": seconds}
            connection.execute(
                text(
                    "INSERT INTO event (study_id, trial_id, kind, actor, detail, created_at)"
                    " SELECT study_id, id, :kind, :actor, CAST(:detail AS jsonb),"
                    " now() - interval '300 s' + make_interval(secs => :seconds) FROM trial WHERE number = :number"
                ),
                {**values, "detail": json.dumps({"attempt": attempt} if attempt else {})},
            )
    migrate(empty_database_url)
    with connected(empty_database_url) as connection:
        rows = connection.execute(
            text(
                "SELECT number, attempt.attempt, worker, extract(epoch FROM seen_at - claimed_at)::int,"
                " extract(epoch FROM ended_at - claimed_at)::int, ended_as"
                " FROM attempt JOIN trial ON trial.id = trial_id ORDER BY 1, 2"
            )
        ).all()
        assert [tuple(row) for row in rows] == [
            (0, 1, "w1", 20, 20, "unknown"),
            (0, 2, "w2", 40, 40, "completed"),
            (4, 1, "w1", 30, None, None),
        ]
        study = studies.get(connection, "active")
        # 60 s of trial 0, 3 s of epochs of trial 1, and of trial 4 one heartbeat more than 30 s.
        assert study.gpu_seconds_spent == pytest.approx(60 + 3 + 45)
