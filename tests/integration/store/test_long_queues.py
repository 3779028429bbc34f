"""A claim looks at the first trials that wait, and yet takes what it would take if it looked at all."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Result, text

from hpo.protocol import ClaimRequest, WorkerInfo
from hpo.store import Database, lifecycle, workers
from hpo.store.statements import execute

from .test_gpus import FOUR
from .world import claim, make_study, must_claim, suggest, worker

LARGE, SMALL = 2 * 2**30, 2**30
WORKERS = [
    worker("alone", memory_bytes=SMALL),
    worker("eight", memory_bytes=LARGE, gpus=8),
    worker("small", memory_bytes=SMALL, gpus=4),
    worker("unknown"),
]
ENTANGLE = text("""
UPDATE trial
SET priority = CAST(:priority AS int), required_memory_bytes = CAST(:memory AS bigint), attempt = CAST(:attempt AS int),
    started_at = CASE WHEN CAST(:attempt AS int) > 0 THEN clock_timestamp() END,
    not_before = CASE WHEN :waits THEN clock_timestamp() + interval '1 hour' END
WHERE id = :id
""")
FAIL = text("""
INSERT INTO attempt (trial_id, attempt, worker, lease_id, gpus, claimed_at, seen_at, ended_at, ended_as, fault)
SELECT :id, 1, :worker, gen_random_uuid(), 1, now.value, now.value, now.value, 'crashed', 'device'
FROM (SELECT clock_timestamp() AS value) AS now
""")


def entangle(connection: Connection, trial_ids: list[int], rng: random.Random) -> None:
    """Give waiting trials priorities, needs of memory, times to wait and failures on some workers."""
    for trial_id in trial_ids:
        memory = rng.choice([None, None, SMALL, LARGE])
        values = {"id": trial_id, "priority": rng.choice([0, 0, 0, 1, 2]), "memory": memory}
        has_failed = rng.random() < 0.3
        attempt = 2 if has_failed else rng.choice([0, 2])
        connection.execute(ENTANGLE, {**values, "attempt": attempt, "waits": rng.random() < 0.1})
        if has_failed:
            connection.execute(FAIL, {"id": trial_id, "worker": rng.choice(WORKERS).name})


def taken(connection: Connection, order: list[WorkerInfo]) -> list[int | None]:
    """Return the trials that workers get one after another."""
    leases = [
        lifecycle.claim(connection, ClaimRequest(worker=info, lease_id=uuid4(), study=None), lease_seconds=60)
        for info in order
    ]
    return [None if lease is None else lease.trial_id for lease in leases]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("looks", [(1, 4, None), (3, None)])
def test_what_is_taken_does_not_depend_on_how_many_are_looked_at(
    seed: int, looks: tuple[int | None, ...], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    waiting = [
        trial.id
        for name, changes in (("one", {}), ("four", FOUR), ("another", {}))
        for trial in suggest(database, make_study(database, name, **changes), 5)
    ]
    empty = make_study(database, "empty")
    for info in WORKERS:  # they are known, and alive
        claim(database, empty, name=info.name, memory_bytes=info.memory_bytes, gpus=info.gpus)
    order = [rng.choice(WORKERS) for _ in range(len(waiting) + 3)]
    found: dict[tuple[int | None, ...], list[int | None]] = {}
    for window in (looks, (None,)):
        monkeypatch.setattr(lifecycle, "LOOKS", window)
        with database.transaction() as connection, connection.begin_nested() as savepoint:
            entangle(connection, waiting, random.Random(seed))  # noqa: S311 - no secret
            found[window] = taken(connection, order)
            savepoint.rollback()
    assert found[looks] == found[None,]
    assert len({trial for trial in found[looks] if trial is not None}) >= 3


def test_what_no_worker_may_take_does_not_hide_what_waits_behind_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LOOKS", (2, 3, None))
    study = make_study(database)
    waiting = suggest(database, study, 4)
    with database.transaction() as connection:
        large = text("UPDATE trial SET required_memory_bytes = :bytes WHERE id = ANY (:ids)")
        connection.execute(large, {"bytes": LARGE, "ids": [trial.id for trial in waiting[:3]]})
    assert must_claim(database, study, memory_bytes=SMALL).trial_id == waiting[3].id
    assert claim(database, study, memory_bytes=SMALL) is None


def _looks_of(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Return the list to which every look of a claim adds how many it looks at."""
    looked: list[int | None] = []

    def noted(connection: Connection, name: str, /, **values: Any) -> Result[Any]:
        if name == "claim":
            looked.append(values["near"])
        return execute(connection, name, **values)

    monkeypatch.setattr(lifecycle, "execute", noted)
    return looked


def test_a_claim_in_vain_looks_further_only_where_more_wait_that_it_might_have(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LOOKS", (3, 5, None))
    looked = _looks_of(monkeypatch)
    four, one = make_study(database, "four", **FOUR), make_study(database, "one")
    suggest(database, four, 6)
    assert claim(database) is None, "each of them needs four GPUs"
    assert looked == [3], "none of those that wait could be for this worker"
    trials = suggest(database, one, 4)
    with database.transaction() as connection:
        large = text("UPDATE trial SET required_memory_bytes = :bytes WHERE id = ANY (:ids)")
        connection.execute(large, {"bytes": LARGE, "ids": [trial.id for trial in trials]})
    assert claim(database, memory_bytes=SMALL) is None
    assert looked == [3, 3, 5], "four wait in all, so that five are all"


def test_of_many_studies_with_long_queues_a_claim_reads_few_trials(database: Database) -> None:
    for number in range(40):
        suggest(database, make_study(database, f"study-{number}"), 60)
    first = must_claim(database)
    with database.transaction() as connection:
        connection.execute(text("ANALYZE"))  # a plan for tables that were empty may read them from end to end
    with database.transaction() as connection:
        before = _fetched(connection)
        claimed = lifecycle.claim(
            connection, ClaimRequest(worker=worker("other"), lease_id=uuid4(), study=None), lease_seconds=60
        )
        read = _fetched(connection) - before
    assert claimed is not None
    assert claimed.trial_id == first.trial_id + 1
    # The first of each study, and the first 32 of the first 32 of these; all 2,400 would be read otherwise.
    assert read < 40 + 32 * 32 + 200


def test_the_list_of_workers_reads_each_running_trial_once(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 30)
    held = {name: must_claim(database, name=name).trial_id for name in (f"worker-{number:02}" for number in range(30))}
    with database.transaction() as connection:
        before = _fetched(connection)
        listed = {row.name: row.trial_id for row in workers.list_all(connection)}
        read = _fetched(connection) - before
    assert listed == held
    assert read <= 2 * len(held)


def test_the_search_for_trials_that_fit_nowhere_reads_no_attempts_of_those_that_were_never_begun(
    database: Database,
) -> None:
    study = make_study(database)
    suggest(database, study, 100)
    must_claim(database)  # so that there are a worker and an attempt
    with database.transaction() as connection:
        before = _looked_up(connection, "attempt")
        assert lifecycle.give_up(connection) == []
        assert _looked_up(connection, "attempt") - before < 10


def _looked_up(connection: Connection, table: str) -> int:
    """Return how often this transaction has looked into a table so far."""
    asked = text("SELECT seq_scan + idx_scan FROM pg_stat_xact_user_tables WHERE relname = :table")
    return int(connection.execute(asked, {"table": table}).scalar_one())


def _fetched(connection: Connection) -> int:
    """Return how many trials this transaction has read so far, from end to end or by an index."""
    return int(
        connection.execute(
            text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'trial'")
        ).scalar_one()
    )
