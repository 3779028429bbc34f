"""The best configurations are trained again after the search, on a real Postgres."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from hpo.errors import ConflictError, NotFoundError
from hpo.protocol import Lease
from hpo.service import finishing
from hpo.service.decision import decide
from hpo.service.finishing import end_finished_studies
from hpo.service.suggestion_queue import SuggestionQueue
from hpo.spec.finalists import FinalistsConfig
from hpo.store import Database, events, finalists, lifecycle, studies
from hpo.store.studies import StudyRow
from hpo.trial import FINALISTS, REPLICATE, Decision, StudyState, Suggestion, TrialRecord, TrialState

from ..store import world
from .studies import create, optimizing, records

VALUES = (0.2, 0.9, 0.88, 0.5, 0.86, 0.3)
"""What the trials of the search end with, by number."""
NOISY = [{"metric": "val_top1", "noise_sd": 0.03}]
RULES = {"top": 3, "seeds": 2, "share": 0.5, "probability": 0.99}


def value_of(trial: TrialRecord) -> float:
    """Return what a training ends with: that of its configuration, less a bit for every further seed."""
    first = trial.number if trial.replicate_of is None else trial.replicate_of
    return VALUES[first] - (0.0 if trial.replicate_of is None else 0.001 * (trial.number % 3))


def settle(database: Database) -> None:
    """Do what follows the end of a trial."""
    end_finished_studies(database)


def train(database: Database, lease: Lease, *, outcome: str = "completed", gpu_seconds: float = 2.0) -> None:
    """Train a claimed trial to its end."""
    value = value_of(world.record(database, lease.trial_id))
    if outcome == "completed":
        curve = [world.measurement(step, value, gpu_seconds) for step in (1, 2, 3)]
        world.report(database, lease, *curve)
        world.finish(database, lease, metrics={"val_top1": value})
    else:
        world.finish(database, lease, outcome, failure_kind="diverged")
    settle(database)


def searched(database: Database, **sections: Any) -> StudyRow:
    """Return a study whose search has just ended."""
    usual = {"objectives": NOISY, "budget": {"trials": len(VALUES)}, "finalists": RULES}
    study = world.make_study(database, **{**usual, **sections})
    world.suggest(database, study, len(VALUES))
    for _ in VALUES:
        train(database, world.must_claim(database))
    return study


def again(database: Database, study: StudyRow) -> list[TrialRecord]:
    """Return the trials that train a configuration again."""
    return [record for record in records(database, study) if record.replicate_of is not None]


def run_out(database: Database, **options: Any) -> None:
    """Train whatever there is to claim."""
    while (lease := world.claim(database)) is not None:
        train(database, lease, **options)


def test_the_leaders_are_trained_again_with_fresh_seeds_and_then_the_study_ends(database: Database) -> None:
    study = searched(database)
    assert world.study_row(database).state is StudyState.ACTIVE
    run_out(database)
    ended = world.study_row(database)
    assert ended.state is StudyState.COMPLETED
    assert ended.state_reason is not None
    assert ended.state_reason.startswith("all 6 trials are done; after 3 further trainings trial 1 is the best of 3")
    trained = again(database, study)
    # Half of the budget of six trials, on top of it.
    assert [record.number for record in trained] == [6, 7, 8]
    assert {record.replicate_of for record in trained} <= {1, 2, 4}
    assert (ended.live_trials, ended.replicates) == (6, 3)
    by_number = {record.number: record for record in records(database, study)}
    for record in trained:
        first = by_number[record.replicate_of or 0]
        assert (record.params, record.generator) == (first.params, FINALISTS)


def test_a_lease_of_a_replicate_differs_from_the_first_one_in_the_seed_alone(database: Database) -> None:
    study = searched(database, task={"dataset": {"root": "/data"}, "epochs": 3, "base": {"seed": 11}})
    lease = world.must_claim(database)
    first = study.spec.trial_config(lease.params, number=1)
    assert first["seed"] == 11 != lease.config["seed"]
    assert {**lease.config, "seed": 11} == first


def test_whoever_asks_at_once_adds_a_replicate_once(database: Database) -> None:
    study = searched(database)
    threads = [threading.Thread(target=settle, args=(database,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(again(database, study)) == 1, "there is one worker"


def test_of_two_who_planned_from_the_same_trials_one_adds_a_replicate(database: Database) -> None:
    study = searched(database, finalists=None)
    with database.transaction() as connection:
        finalists.ask_for(connection, study.name, FinalistsConfig(share=0.5), actor="test")

    def add() -> TrialRecord | None:
        with database.transaction() as connection:
            return lifecycle.replicate(connection, study.id, 1, generator=FINALISTS, actor="test", next_number=6)

    assert add() is not None
    assert add() is None


def test_as_many_are_trained_at_once_as_there_are_workers(database: Database) -> None:
    study = world.make_study(database, objectives=NOISY, budget={"trials": len(VALUES)}, finalists=RULES)
    world.suggest(database, study, len(VALUES))
    leases = [world.must_claim(database, name=f"worker-{place % 2}") for place in range(len(VALUES))]
    for lease in leases:
        train(database, lease)
    assert [record.state for record in again(database, study)] == [TrialState.SUGGESTED] * 2


def test_it_waits_for_the_last_trial_of_the_search(database: Database) -> None:
    study = world.make_study(database, budget={"trials": 2}, finalists=RULES)
    world.suggest(database, study, 2)
    first, last = world.must_claim(database), world.must_claim(database)
    train(database, first)
    assert world.study_row(database).search_ended_at is None
    assert again(database, study) == []
    train(database, last)
    assert len(again(database, study)) == 1


def test_a_clear_leader_needs_one_more_training_and_stops_the_others(database: Database) -> None:
    rules = {**RULES, "probability": 0.5}
    study = world.make_study(database, objectives=NOISY, budget={"trials": 6}, finalists=rules)
    world.suggest(database, study, 6)
    leases = [world.must_claim(database, name=f"worker-{place % 3}") for place in range(6)]
    for lease in leases:
        train(database, lease)
    running = [world.must_claim(database) for _ in range(len(again(database, study)))]
    assert len(running) == 3
    leader = next(lease for lease in running if world.record(database, lease.trial_id).replicate_of == 1)
    train(database, leader)
    others = [lease for lease in running if lease is not leader]
    for lease in others:
        reported = world.report(database, lease, world.measurement(1))
        assert decide(database, reported, lease.trial_id, last_step=1) is Decision.STOP
        world.finish(database, lease, "stopped", metrics={"val_top1": 0.5})
    settle(database)
    ended = world.study_row(database)
    assert (ended.state, ended.replicates) == (StudyState.COMPLETED, 3)


def test_finalists_that_all_fail_leave_the_study_completed(database: Database) -> None:
    study = searched(database)
    run_out(database, outcome="failed")
    ended = world.study_row(database)
    assert ended.state is StudyState.COMPLETED
    assert [record.state for record in again(database, study)] == [TrialState.FAILED] * 3


def test_a_search_without_a_result_has_no_finalists(database: Database) -> None:
    study = world.make_study(database, budget={"trials": 2}, finalists={**RULES})
    world.suggest(database, study, 2)
    run_out(database, outcome="failed")
    assert world.study_row(database).finished_at is not None
    assert again(database, study) == []


def test_pause_and_resume_keep_the_phase(database: Database) -> None:
    study = searched(database)
    running = world.must_claim(database)
    move(database, StudyState.PAUSED)
    reported = world.report(database, running, world.measurement(1))
    assert decide(database, reported, running.trial_id, last_step=1) is Decision.PAUSE
    world.release(database, running, "paused")
    settle(database)
    assert world.claim(database) is None
    assert world.study_row(database).state is StudyState.PAUSED
    move(database, StudyState.ACTIVE)
    settle(database)
    resumed = world.must_claim(database)
    assert resumed.trial_id == running.trial_id
    train(database, resumed)
    run_out(database)
    assert world.study_row(database).state is StudyState.COMPLETED
    assert len(again(database, study)) == 3


def test_stopping_the_study_withdraws_what_nobody_has_claimed(database: Database) -> None:
    study = searched(database)
    move(database, StudyState.STOPPED)
    settle(database)
    assert [record.state for record in again(database, study)] == [TrialState.WITHDRAWN]
    stopped = world.study_row(database)
    assert stopped.finished_at is not None
    assert (stopped.live_trials, stopped.replicates) == (6, 0)


def test_the_phase_needs_no_optimizer_and_no_optimizer_disturbs_it(database: Database) -> None:
    study = create(database, budget={"trials": 4}, optimizer={"name": "sobol"}, finalists=RULES)
    with optimizing(database):
        for number in range(4):
            end(database, wait_for(lambda: world.claim(database)), 0.8 + 0.01 * number)
        lease = world.must_claim(database)
    # That optimizer is gone. What it left is trained to the end, and another one adds nothing of its own.
    end(database, lease, 0.8)
    with optimizing(database, owner="b"):
        while (lease_left := world.claim(database)) is not None:
            end(database, lease_left, 0.8)
    assert world.study_row(database).state is StudyState.COMPLETED
    assert [record.generator for record in records(database, study)] == ["sobol"] * 4 + [FINALISTS] * 2
    assert [record.number for record in records(database, study)] == list(range(6))


def end(database: Database, lease: Lease, value: float) -> None:
    """Complete a trial in one report."""
    world.report(database, lease, world.measurement(3, value))
    world.finish(database, lease, metrics={"val_top1": value})
    settle(database)


def wait_for(found: Callable[[], Lease | None]) -> Lease:
    """Return what another thread brings about."""
    pause = threading.Event()
    for _ in range(2000):
        if (lease := found()) is not None:
            return lease
        pause.wait(0.01)
    raise AssertionError("nothing was suggested")


def move(database: Database, target: StudyState) -> None:
    """Pause, resume or stop the study."""
    with database.transaction() as connection:
        studies.set_state(connection, "study", target, actor="test")


# ---------------------------------------------------------------- hours


def test_gpu_hours_are_shared_between_search_and_finalists(database: Database) -> None:
    hour = 1 / 3600
    rules = {**RULES, "share": 0.4}
    study = world.make_study(database, objectives=NOISY, budget={"gpu_hours": 40 * hour}, finalists=rules)
    world.suggest(database, study, 6)
    for _ in range(3):
        train(database, world.must_claim(database))  # six seconds each
    running = world.must_claim(database)
    reported = world.report(database, running, world.measurement(1, gpu_seconds=5.9))
    settle(database)
    assert world.study_row(database).search_ended_at is None, "23.9 of 24 seconds are used"
    assert decide(database, reported, running.trial_id, last_step=1) is Decision.CONTINUE
    reported = world.report(database, running, world.measurement(2, gpu_seconds=0.1))
    settle(database)
    reported = world.report(database, running)
    assert decide(database, reported, running.trial_id, last_step=None) is Decision.STOP
    assert again(database, study) == [], "the search still runs"
    world.finish(database, running, "stopped", metrics={"val_top1": 0.1})
    settle(database)
    assert {record.state for record in records(database, study) if record.number in (4, 5)} == {TrialState.WITHDRAWN}
    run_out(database)
    # Of the 16 seconds that are left two trainings of six fit, and no third one.
    ended = world.study_row(database)
    assert (ended.state, ended.replicates) == (StudyState.COMPLETED, 2)
    assert ended.gpu_seconds_spent <= 40
    assert ended.gpu_seconds_saved == 0, "the end of the search is no early stopping"


@pytest.mark.parametrize(("startup", "replicates"), [(0, 2), (3, 1)])
def test_no_finalist_begins_whose_start_up_would_not_fit(database: Database, startup: int, replicates: int) -> None:
    """Four trials of six seconds in epochs, `startup` seconds for each in which none ran. 17 seconds are left."""
    used = 4 * (6 + startup)
    hours = (used + 17) / 3600
    world.make_study(database, objectives=NOISY, budget={"gpu_hours": hours}, finalists={**RULES, "share": 0.2})
    world.suggest(database, world.study_row(database), 4)
    shifted = text("UPDATE attempt SET claimed_at = claimed_at - make_interval(secs => :secs) WHERE trial_id = :id")

    def train_all() -> None:
        while (lease := world.claim(database)) is not None:
            with database.transaction() as connection:
                connection.execute(shifted, {"secs": 6 + startup, "id": lease.trial_id})
            train(database, lease)

    train_all()
    with database.transaction() as connection:
        finalists.ask_for(connection, "study", FinalistsConfig.model_validate(RULES), end_search=True, actor="anna")
    settle(database)
    train_all()
    assert world.study_row(database).replicates == replicates


# ---------------------------------------------------------------- asked for by people


def test_an_ended_study_is_opened_again(database: Database) -> None:
    study = searched(database, finalists=None)
    assert world.study_row(database).state is StudyState.COMPLETED
    with database.transaction() as connection:
        opened = finalists.ask_for(connection, "study", FinalistsConfig(share=0.4), actor="anna")
    assert (opened.state, opened.finished_at) == (StudyState.ACTIVE, None)
    settle(database)
    run_out(database)
    ended = world.study_row(database)
    assert (ended.state, ended.live_trials, len(again(database, study))) == (StudyState.COMPLETED, 6, 2)


def test_a_used_up_budget_of_hours_grows_by_the_share_when_a_study_is_opened_again(database: Database) -> None:
    hour = 1 / 3600
    study = world.make_study(database, budget={"gpu_hours": 24 * hour})
    world.suggest(database, study, 4)
    run_out(database)
    assert world.study_row(database).state is StudyState.COMPLETED
    with database.transaction() as connection:
        finalists.ask_for(connection, "study", FinalistsConfig(share=0.25), actor="anna")
    settle(database)
    run_out(database)
    ended = world.study_row(database)
    assert (ended.state, ended.replicates) == (StudyState.COMPLETED, 1), "six seconds are one training"


def test_what_a_person_stopped_was_not_stopped_early_once_the_study_is_opened_again(database: Database) -> None:
    world.make_study(database, objectives=NOISY, budget={"trials": 9})
    world.suggest(database, world.study_row(database), 3)
    first, last = world.must_claim(database), world.must_claim(database)
    train(database, first)
    world.report(database, last, world.measurement(1, 0.5, 2.0))
    move(database, StudyState.STOPPED)
    world.finish(database, last, "stopped", metrics={"val_top1": 0.5})
    settle(database)
    assert world.study_row(database).gpu_seconds_saved == 0
    with database.transaction() as connection:
        finalists.ask_for(connection, "study", FinalistsConfig(share=0.5, top=2), actor="anna")
    assert world.study_row(database).gpu_seconds_saved == 0


def test_a_stop_at_the_same_moment_keeps_its_reason(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    study = world.make_study(database, budget={"gpu_hours": 1e-6})
    world.suggest(database, study, 2)
    lease = world.must_claim(database)
    world.report(database, lease, world.measurement(1, 0.5, 9.0))
    before = world.study_row(database)
    with database.transaction() as connection:
        studies.set_state(connection, "study", StudyState.STOPPED, actor="anna", reason="the data were wrong")
    now = finishing._settle
    monkeypatch.setattr(finishing, "_settle", lambda connection, _: now(connection, before))
    settle(database)
    stopped = world.study_row(database)
    assert (stopped.state_reason, stopped.budget_reached_at) == ("the data were wrong", None)


def test_asking_again_continues_with_more_seeds(database: Database) -> None:
    study = searched(database, finalists={"top": 2, "seeds": 1, "share": 0.5, "probability": 0.99})
    run_out(database)
    assert len(again(database, study)) == 2
    wanted = FinalistsConfig(top=2, seeds=2, share=0.5, probability=0.99)
    with database.transaction() as connection:
        finalists.ask_for(connection, "study", wanted, actor="anna")
    settle(database)
    run_out(database)
    assert [record.replicate_of for record in again(database, study)].count(1) == 2
    assert len(again(database, study)) == 4


def test_the_search_of_a_running_study_ends_only_on_request(database: Database) -> None:
    study = world.make_study(database, budget={"trials": 50})
    world.suggest(database, study, 3)
    train(database, world.must_claim(database))
    running = world.must_claim(database)
    with database.transaction() as connection:
        finalists.ask_for(connection, "study", FinalistsConfig(), actor="anna")
    settle(database)
    assert world.study_row(database).search_ended_at is None
    with database.transaction() as connection:
        finalists.ask_for(connection, "study", FinalistsConfig(), end_search=True, actor="anna")
    assert decide(database, world.report(database, running), running.trial_id, last_step=None) is Decision.STOP
    states = [record.state for record in records(database, study)]
    assert states == [TrialState.COMPLETED, TrialState.RUNNING, TrialState.WITHDRAWN]
    assert world.suggest(database, study) == []
    world.release(database, running, "drained")
    assert world.claim(database) is None, "the search does not begin again"
    settle(database)
    assert world.record(database, running.trial_id).state is TrialState.STOPPED
    assert len(again(database, study)) == 1


@pytest.mark.parametrize("wanted", [FinalistsConfig(share=0.1), FinalistsConfig(share=0.16)])
def test_less_than_one_training_is_refused(database: Database, wanted: FinalistsConfig) -> None:
    searched(database, finalists=None)
    with database.transaction() as connection, pytest.raises(ConflictError, match="less than one training"):
        finalists.ask_for(connection, "study", wanted, actor="anna")


def test_a_study_without_results_has_nothing_to_train_again(database: Database) -> None:
    study = world.make_study(database, budget={"trials": 2})
    world.suggest(database, study, 2)
    run_out(database, outcome="failed")
    with database.transaction() as connection, pytest.raises(ConflictError, match="nothing to train again"):
        finalists.ask_for(connection, "study", FinalistsConfig(share=0.5, top=2), actor="anna")


def test_a_person_has_a_trial_trained_again(database: Database) -> None:
    study = world.make_study(database, budget={"trials": 3})
    world.suggest(database, study, 2)
    train(database, world.must_claim(database))
    with database.transaction() as connection:
        added = finalists.train_again(connection, "study", 0, actor="anna")
        twice = finalists.train_again(connection, "study", 0, actor="anna")
        third = finalists.train_again(connection, "study", added.number, actor="anna") if added.attempt else None
    assert (added.replicate_of, added.generator, twice.number) == (0, REPLICATE, added.number + 1)
    assert third is None
    row = world.study_row(database)
    assert (row.live_trials, row.replicates) == (2, 2), "the search keeps its three trials"
    assert world.must_claim(database).number == added.number, "before what the optimizer proposes"
    with database.transaction() as connection, pytest.raises(ConflictError, match="has not begun"):
        finalists.train_again(connection, "study", 1, actor="anna")
    with database.transaction() as connection:
        again_of_again = finalists.train_again(connection, "study", added.number, actor="anna")
    assert again_of_again.replicate_of == 0


def test_the_optimizer_leaves_replicates_alone_and_they_take_no_place_of_a_guess(database: Database) -> None:
    study = world.make_study(database, budget={"trials": 2}, optimizer={"name": "sobol"})
    world.suggest(database, study, 1)
    train(database, world.must_claim(database))
    guess = {"lr": 0.25}
    with database.transaction() as connection:
        added = finalists.train_again(connection, "study", 0, actor="anna")
        with pytest.raises(ConflictError, match="room for 1 more"):
            studies.enqueue(connection, "study", [guess, {"lr": 0.5}], actor="anna")
        studies.enqueue(connection, "study", [guess], actor="anna")
        generation = studies.acquire_generator(connection, study.id, world.OWNER, 3600)
        assert generation is not None
        other = Suggestion(params={"lr": 0.75}, generator="sobol")
        replaced = lifecycle.replace_suggestion(connection, added.id, other, owner=world.OWNER, generation=generation)
        assert not replaced
    queue = SuggestionQueue(database, world.OWNER)
    while queue.step(world.study_row(database), generation=generation, demand=2):
        pass
    shown = [(record.params["lr"], record.replicate_of) for record in records(database, study)]
    assert shown == [(0.001, None), (0.001, 0), (0.25, None)]


def test_withdrawn_and_cancelled_replicates_leave_the_count_of_the_search(database: Database) -> None:
    study = world.make_study(database, budget={"trials": 3})
    world.suggest(database, study, 1)
    train(database, world.must_claim(database))
    with database.transaction() as connection:
        first = finalists.train_again(connection, "study", 0, actor="anna")
        finalists.train_again(connection, "study", 0, actor="anna")
        lifecycle.cancel(connection, first.id, actor="anna")
    move(database, StudyState.STOPPED)
    row = world.study_row(database)
    with database.transaction() as connection:
        kept = world.scalar(connection, "SELECT live_trials FROM study WHERE id = :id", id=study.id)
    assert (row.live_trials, row.replicates, kept) == (1, 0, 1)


def test_an_ended_study_trains_nothing_again_by_itself(database: Database) -> None:
    searched(database, finalists=None)
    with database.transaction() as connection, pytest.raises(ConflictError, match="hpo finalists study"):
        finalists.train_again(connection, "study", 0, actor="anna")


def test_a_seed_in_the_space_leaves_no_fresh_seed(database: Database) -> None:
    space = {"seed": {"type": "int", "low": 0, "high": 9}, "lr": {"type": "float", "low": 1e-6, "high": 1.0}}
    world.make_study(database, space=space)
    with database.transaction() as connection, pytest.raises(ConflictError, match="`seed` is a parameter"):
        finalists.ask_for(connection, "study", FinalistsConfig(), actor="anna")


@pytest.mark.parametrize("fault", [ValueError("a fault"), NotFoundError("it was deleted")])
def test_a_fault_in_one_study_keeps_no_other_from_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def advance(connection: Connection, found: StudyRow, *, search_is_over: str | None) -> str | None:
        if found.name == "study":
            events.append(connection, found.id, None, "study.half_done", "test", {})
            raise fault
        return search_is_over

    monkeypatch.setattr("hpo.service.finalists.advance", advance)
    for name in ("study", "other"):
        study = world.make_study(database, name, budget={"trials": 2}, finalists=RULES)
        world.suggest(database, study, 2)
        for _ in range(2):
            world.finish(database, world.must_claim(database, study), metrics={"val_top1": 0.5})
    assert end_finished_studies(database) == ["other"]
    assert world.study_row(database).finished_at is None
    half_done = "SELECT count(*) FROM event WHERE kind = 'study.half_done'"
    with database.transaction() as connection:
        assert connection.execute(text(half_done)).scalar_one() == 0
