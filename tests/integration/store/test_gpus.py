"""Trials that need several GPUs: who gets them, in which order, and what they use."""

from __future__ import annotations

from uuid import uuid4

import pytest

from hpo.protocol import ClaimRequest
from hpo.store import Database, studies, trials

from .world import claim, make_study, must_claim, suggest, worker

FOUR = {"resources": {"gpus": 4}, "task": {"dataset": {"root": "/data"}, "epochs": 3, "base": {"batch_size": 8}}}


def test_a_trial_is_given_to_enough_gpus_alone_and_the_largest_that_fits_comes_first(database: Database) -> None:
    small, large = make_study(database, "small"), make_study(database, "large", **FOUR)
    suggest(database, small, 2)
    suggest(database, large, 2)
    assert claim(database, large, name="two", gpus=2) is None
    first = must_claim(database, name="four", gpus=4)
    assert first.study == "large"
    assert first.resources == large.spec.resources
    assert must_claim(database, name="two", gpus=2).study == "small"
    assert must_claim(database, name="eight", gpus=8).study == "large"
    assert must_claim(database, name="four", gpus=4).resources is None
    with database.transaction() as connection:
        assert [trials.demand(connection, study.id) for study in (small, large)] == [3, 2]


def test_a_trial_of_several_machines_is_given_to_a_group_of_just_so_many(database: Database) -> None:
    alone = make_study(database, "alone")
    pair = make_study(database, "pair", resources={"gpus": 2, "nodes": 2}, task=FOUR["task"])
    suggest(database, alone)
    suggest(database, pair)
    assert claim(database, pair, name="large", gpus=4) is None
    assert claim(database, None, name="three", gpus=2, nodes=3) is None
    lease = must_claim(database, name="two", gpus=2, nodes=2)
    assert (lease.study, lease.resources) == ("pair", pair.spec.resources)
    assert must_claim(database, name="large", gpus=4).study == "alone"
    with database.transaction() as connection:
        held = "SELECT gpus FROM attempt WHERE worker = 'two'"
        assert connection.exec_driver_sql(held).scalar_one() == 4
        assert [trials.demand(connection, study.id) for study in (alone, pair)] == [1, 1]


def test_workers_of_earlier_releases_are_not_told_of_a_single_gpu(database: Database) -> None:
    study = make_study(database, resources={"gpus": 1})
    suggest(database, study)
    assert "resources" not in must_claim(database, study).to_json()


def test_each_gpu_of_a_trial_is_in_use_from_its_claim_on(database: Database) -> None:
    used = {}
    for name, fields in (("small", {}), ("large", FOUR)):
        study = make_study(database, name, **fields)
        suggest(database, study)
        must_claim(database, study, gpus=4, name=name)
        with database.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE attempt SET claimed_at = claimed_at - interval '100 seconds', ended_at = seen_at,"
                " ended_as = 'drained' WHERE ended_at IS NULL"
            )
            used[name] = studies.get(connection, name).gpu_seconds_spent
    assert used["small"] == pytest.approx(100.0)
    assert used["large"] == pytest.approx(4 * 100.0)


def test_a_single_gpu_is_not_written() -> None:
    claims = [ClaimRequest(worker=worker(gpus=gpus), lease_id=uuid4()).to_json() for gpus in (1, 2)]
    assert ["gpus" in one for one in claims] == [False, True]
