"""What the service says of checkpoint files, from real rows, and that an export and a removal never cross."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from hpo.errors import StoreUnavailableError
from hpo.protocol import FilesReply, FilesRequest, Keep, Lease, RemovalsRequest
from hpo.service import checkpoints as service
from hpo.store import Database, checkpoints, studies
from hpo.store.studies import StudyRow

from ..store.world import finish, make_study, measurement, must_claim, report, run, scalar, study_row, suggest

VALUES = (0.5, 0.9, 0.7)


@pytest.fixture
def leases(database: Database) -> list[Lease]:
    """Three trials of a study that completed with VALUES, one that failed, one that runs; a sixth waits."""
    study = make_study(database, checkpoints={"last": False, "quota_gb": 0.5})
    suggest(database, study, 6)
    claimed = [must_claim(database, study, name=f"w{number}") for number in range(5)]
    for number, value in enumerate(VALUES):
        path = f"/home/c/{study.uuid}/{claimed[number].trial_id}/final-{number}.pt"
        report(database, claimed[number], measurement(3, value))
        finish(database, claimed[number], metrics={"val_top1": value}, checkpoint=path)
    finish(database, claimed[3], "failed", failure_kind="error")
    report(database, claimed[4], measurement(1), checkpoint="/home/c/running.pt")
    return claimed


def plan(database: Database, study: StudyRow, trials: list[int]) -> FilesReply:
    """Return what stays of these trials."""
    with database.transaction() as connection:
        return service.what_stays(connection, FilesRequest(study=study.uuid, trials=trials))


def give_up(database: Database, study: StudyRow, trials: list[int], last: list[int]) -> list[int]:
    """Return those of the trials that may go."""
    with database.transaction() as connection:
        request = RemovalsRequest(study=study.uuid, trials=trials, last=last)
        return service.give_up(connection, request, actor="test")


def export(database: Database, study: StudyRow, trial_id: int) -> bool:
    """Return whether the checkpoint of an exported trial is still there."""
    with database.transaction() as connection:
        return checkpoints.note_export(connection, study.id, trial_id, actor="test")


def _export_within_50_ms(database: Database, study: StudyRow, trial_id: int) -> None:
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
        checkpoints.note_export(connection, study.id, trial_id, actor="test")


def test_the_plan_says_what_stays_of_each_trial_and_who_goes_first(database: Database, leases: list[Lease]) -> None:
    study = study_row(database)
    ids = [lease.trial_id for lease in leases]
    found = plan(database, study, [*ids, 10**9])
    assert (found.name, found.state, found.quota_bytes) == ("study", "exists", 500_000_000)
    assert {one.trial_id: one.keep for one in found.trials} == dict(
        zip(ids, [Keep.FURTHER, Keep.WEIGHTS, Keep.FURTHER, Keep.NOTHING, Keep.ALL], strict=True)
    )
    assert [one.last for one in found.trials] == ["final-0.pt", "final-1.pt", "final-2.pt", None, "running.pt"]
    assert [one.attempt for one in found.trials] == [1] * 5
    assert found.worst_first == [ids[3], ids[0], ids[2]]
    assert plan(database, study, ids[:1]).worst_first == ids[:1], "of those that were asked for"


def test_a_trial_that_was_exported_is_never_given_up_and_one_that_was_given_up_says_so(
    database: Database, leases: list[Lease]
) -> None:
    study = study_row(database)
    first, best, third, failed, running = (lease.trial_id for lease in leases)
    assert export(database, study, third)
    assert export(database, study, third)
    assert give_up(database, study, [first, best, third, failed, running], [first, best]) == [first, failed]
    assert give_up(database, study, [first], [first]) == [first], "the same again"
    assert not export(database, study, first)
    assert export(database, study, best)
    with database.transaction() as connection:
        for kind, trial_ids in ((checkpoints.REMOVED, [first]), (checkpoints.EXPORTED, sorted([first, best, third]))):
            found = connection.execute(text("SELECT trial_id FROM event WHERE kind = :kind"), {"kind": kind})
            assert sorted(found.scalars()) == trial_ids, "once each"


def test_an_export_waits_for_a_removal_that_is_being_decided(database: Database, leases: list[Lease]) -> None:
    study, trial_id = study_row(database), leases[0].trial_id
    with database.transaction() as connection:
        request = RemovalsRequest(study=study.uuid, trials=[trial_id], last=[trial_id])
        assert service.give_up(connection, request, actor="test") == [trial_id]
        with pytest.raises(StoreUnavailableError) as refused:
            _export_within_50_ms(database, study, trial_id)
        assert "lock timeout" in str(refused.value.__cause__)
    assert not export(database, study, trial_id)


def test_a_replicate_and_finalists_are_needed(database: Database, leases: list[Lease]) -> None:
    study = study_row(database)
    ids = [lease.trial_id for lease in leases]
    run(database, "UPDATE trial SET replicate_of = 0 WHERE id = :id", id=ids[2])
    assert [one.keep for one in plan(database, study, ids[:3]).trials] == [Keep.WEIGHTS] * 3
    run(database, "UPDATE trial SET replicate_of = NULL WHERE id = :id", id=ids[2])
    finalists = '{"top": 2, "seeds": 1, "share": 0.1, "probability": 0.9}'
    run(database, "UPDATE study SET finalists = CAST(:rules AS jsonb)", rules=finalists)
    assert [one.keep for one in plan(database, study, ids[:3]).trials] == [Keep.FURTHER, Keep.WEIGHTS, Keep.WEIGHTS]


def test_a_deleted_study_is_told_from_one_that_is_not_known(database: Database, leases: list[Lease]) -> None:
    study = study_row(database)
    finish(database, leases[4], "stopped")
    run(database, "UPDATE trial SET checkpoint = '/home/c/1/5/final.pt' WHERE id = :id", id=leases[0].trial_id)
    with database.transaction() as connection:
        gone = studies.delete(connection, "study", actor="test")
    assert (gone.uuid, gone.hosts) == (study.uuid, tuple(f"host of w{place}" for place in range(5)))
    assert gone.earlier_folders == ("/home", "/home/c/1")
    found = plan(database, study, [leases[0].trial_id])
    assert (found.state, found.name, found.trials) == ("deleted", "study", [])
    assert give_up(database, study, [leases[0].trial_id], []) == []
    unknown = FilesRequest(study=uuid4(), trials=[1])
    with database.transaction() as connection:
        assert service.what_stays(connection, unknown).state == "unknown"
        assert scalar(connection, "SELECT count(*) FROM study") == 0


def test_a_lease_carries_the_policy_and_a_spec_without_one_is_written_as_before(database: Database) -> None:
    fields: dict[str, Any] = {"checkpoints": {"best": True, "every": 5}}
    study = make_study(database, "with", **fields)
    suggest(database, study)
    with_policy = must_claim(database, study)
    assert with_policy.checkpoints is not None
    assert (with_policy.checkpoints.best, with_policy.checkpoints.every) == (True, 5)
    plain = make_study(database, "without")
    suggest(database, plain)
    assert "checkpoints" not in must_claim(database, plain).to_json()
    with database.transaction() as connection:
        assert "checkpoints" not in scalar(connection, "SELECT spec FROM study WHERE name = 'without'")
