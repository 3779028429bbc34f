"""A claim looks at the first trials that wait of each study, and yet takes what it would take if it looked at all."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Result, text

from hpo.protocol import ClaimRequest, WorkerInfo
from hpo.store import Database, lifecycle
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
@pytest.mark.parametrize("near", [1, 3])
def test_what_is_taken_does_not_depend_on_how_many_are_looked_at(
    seed: int, near: int, database: Database, monkeypatch: pytest.MonkeyPatch
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
    found = {}
    for window in (near, 1000):
        monkeypatch.setattr(lifecycle, "NEAR", window)
        with database.transaction() as connection, connection.begin_nested() as savepoint:
            entangle(connection, waiting, random.Random(seed))  # noqa: S311 - no secret
            found[window] = taken(connection, order)
            savepoint.rollback()
    assert found[near] == found[1000]
    assert len({trial for trial in found[near] if trial is not None}) >= 3


def test_what_no_worker_may_take_does_not_hide_what_waits_behind_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "NEAR", 2)
    study = make_study(database)
    waiting = suggest(database, study, 4)
    with database.transaction() as connection:
        large = text("UPDATE trial SET required_memory_bytes = :bytes WHERE id = ANY (:ids)")
        connection.execute(large, {"bytes": LARGE, "ids": [trial.id for trial in waiting[:3]]})
    assert must_claim(database, study, memory_bytes=SMALL).trial_id == waiting[3].id
    assert claim(database, study, memory_bytes=SMALL) is None


def test_a_claim_in_vain_looks_at_all_only_where_a_study_has_more_than_were_looked_at(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "NEAR", 3)
    looked: list[int | None] = []

    def noted(connection: Connection, name: str, /, **values: Any) -> Result[Any]:
        if name == "claim":
            looked.append(values["near"])
        return execute(connection, name, **values)

    monkeypatch.setattr(lifecycle, "execute", noted)
    studies = [make_study(database, name, **FOUR) for name in ("one", "another")]
    for study in studies:
        suggest(database, study, 2)
    assert claim(database) is None, "each of them needs four GPUs"
    assert looked == [3], "four wait, but no more than two of a study"
    suggest(database, studies[0], 1)
    assert claim(database) is None
    assert looked == [3, 3, None]
