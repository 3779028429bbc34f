"""What one step of the optimizer does to a study, step by step on a real Postgres."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from hpo.optimizer import Optimizer, create_optimizer
from hpo.protocol import ReleaseRequest
from hpo.service import suggestion_queue as server
from hpo.service.finishing import end_finished_studies
from hpo.service.suggestion_queue import SuggestionQueue
from hpo.store import Database, earlier, events, lifecycle, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import Params, StudyState, Suggestion, TrialState

from .studies import claim, create, finish, records, waiting


class Steps:
    """An optimizer process, stopped between its steps."""

    def __init__(self, database: Database, study: StudyRow, owner: str = "a") -> None:
        self.database, self.study, self.owner = database, study, owner
        self.server = SuggestionQueue(database, owner)

    def take(self, demand: int | None = None) -> bool:
        """Return whether more may be left to do after one step."""
        with self.database.transaction() as connection:
            generation = studies.acquire_generator(connection, self.study.id, self.owner, 60)
            assert generation is not None
            study = studies.get_by_id(connection, self.study.id)
            wanted = trials.demand(connection, self.study.id) if demand is None else demand
        return self.server.step(study, generation=generation, demand=wanted)

    def run_until_idle(self, demand: int | None = None) -> int:
        """Return the number of steps taken until there is nothing left to do."""
        for count in range(100):
            if not self.take(demand):
                return count
        raise AssertionError("the optimizer does not come to rest")

    def complete(self, count: int) -> None:
        """Let a worker complete trials, one after the other and each better than the one before."""
        for number in range(count):
            self.run_until_idle(demand=1)
            lease = claim(self.database)
            assert lease is not None
            finish(self.database, lease, 0.1 * number)


@pytest.fixture
def steps(database: Database) -> Steps:
    """The optimizer of a fresh study."""
    return Steps(database, create(database))


def test_the_queue_is_as_long_as_there_are_workers(steps: Steps) -> None:
    steps.run_until_idle()
    assert len(waiting(steps.database, steps.study)) == 1  # nobody yet, but somebody will come
    for place in range(3):
        assert claim(steps.database, f"w{place}") is not None
        steps.run_until_idle()
    assert len(waiting(steps.database, steps.study)) == 3


def test_start_up_suggestions_come_in_one_step(steps: Steps) -> None:
    steps.take(demand=3)
    assert [record.generator for record in waiting(steps.database, steps.study)] == ["sobol"] * 3


def test_a_trial_that_backs_off_leaves_no_worker_idle(steps: Steps) -> None:
    steps.run_until_idle(demand=1)
    lease = claim(steps.database)
    assert lease is not None
    crashed = ReleaseRequest(attempt=lease.attempt, lease_id=lease.lease_id, reason="crashed", message="killed")
    with steps.database.transaction() as connection:
        lifecycle.release(connection, lease.trial_id, crashed)
    steps.run_until_idle(demand=1)
    taken = claim(steps.database)
    assert taken is not None
    assert taken.trial_id != lease.trial_id


def test_the_budget_is_never_exceeded(database: Database) -> None:
    steps = Steps(database, create(database, budget={"trials": 4}))
    for number in range(4):
        steps.run_until_idle(demand=3)
        lease = claim(database)
        assert lease is not None
        finish(database, lease, 0.1 * number)
    steps.run_until_idle(demand=3)
    assert claim(database) is None
    assert [record.state for record in records(database, steps.study)] == [TrialState.COMPLETED] * 4


def test_a_full_budget_costs_no_more_fits(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(database, create(database, budget={"trials": 2}))
    steps.run_until_idle(demand=2)
    assert len(waiting(database, steps.study)) == 2

    def propose(*_: object) -> None:
        raise AssertionError("there is no room for another trial")

    monkeypatch.setattr(Optimizer, "ask", propose)
    assert steps.run_until_idle(demand=9) == 0


@pytest.mark.parametrize("name", ["tpe", "sobol", "ax"])
def test_each_configuration_of_a_finite_space_becomes_one_trial(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    space = {"clip.stride": {"type": "int", "low": 1, "high": 4}, "clip.frames": {"type": "int", "low": 8, "high": 10}}
    rules = ["clip.stride < 3", "clip.frames != 9"]
    steps = Steps(database, create(database, space=space, rules=rules, optimizer={"name": name, "startup_trials": 2}))
    steps.complete(4)
    steps.run_until_idle(demand=3)
    found = [record.params for record in records(database, steps.study)]
    tried = sorted((params["clip.stride"], params["clip.frames"]) for params in found)
    assert tried == [(1, 8), (1, 10), (2, 8), (2, 10)]

    def propose(*_: object) -> None:
        raise AssertionError("there is no other configuration")

    monkeypatch.setattr(Optimizer, "ask", propose)
    assert not steps.take(demand=3)
    assert end_finished_studies(database) == ["study"]


def test_a_suggestion_is_planned_again_as_if_it_were_not_there(steps: Steps) -> None:
    database = steps.database
    steps.complete(3)
    steps.run_until_idle(demand=2)
    running = claim(database)
    assert running is not None
    finish(database, running, 0.9)
    known = [record for record in records(database, steps.study) if record.state is not TrialState.SUGGESTED]
    steps.run_until_idle(demand=1)
    (planned,) = waiting(database, steps.study)
    optimizer = create_optimizer(steps.study.spec)
    optimizer.replay(known)
    assert planned.params == optimizer.ask()[0].params


def test_a_result_makes_waiting_suggestions_of_a_model_new(steps: Steps) -> None:
    database = steps.database
    steps.complete(3)
    steps.run_until_idle(demand=3)
    running = claim(database)
    assert running is not None
    steps.run_until_idle(demand=2)
    before = {record.id: record.params for record in waiting(database, steps.study)}
    finish(database, running, 0.9)
    steps.run_until_idle(demand=2)
    after = {record.id: record.params for record in waiting(database, steps.study)}
    assert set(after) == set(before)  # in place: no number is lost
    assert all(after[id] != before[id] for id in before)
    with database.transaction() as connection:
        kinds = [event.kind for event in events.list_since(connection, steps.study.id, 0, 1000)]
    assert kinds.count("trial.replaced") == len(before)
    keys = [tuple(sorted(record.params.items())) for record in records(database, steps.study)]
    assert len(set(keys)) == len(keys)
    assert steps.run_until_idle(demand=2) == 0  # nothing new, nothing to do


def test_start_up_suggestions_are_not_planned_again(steps: Steps) -> None:
    steps.run_until_idle(demand=3)
    lease = claim(steps.database)
    assert lease is not None
    before = [record.params for record in waiting(steps.database, steps.study)]
    finish(steps.database, lease, 0.5)
    steps.run_until_idle(demand=2)
    assert [record.params for record in waiting(steps.database, steps.study)] == before


def _enqueue(database: Database, *guesses: Params) -> None:
    with database.transaction() as connection:
        studies.enqueue(connection, "study", guesses, actor="ann")


def test_a_guess_replaces_an_unclaimed_suggestion_and_is_claimed_next(database: Database) -> None:
    steps = Steps(database, create(database, budget={"trials": 3}))
    steps.run_until_idle(demand=3)
    before = {record.id for record in waiting(database, steps.study)}
    _enqueue(database, {"lr": 0.01}, {"lr": 0.02, "dropout": 0.5})
    steps.run_until_idle(demand=3)
    found = waiting(database, steps.study)
    assert {record.id for record in found} == before, "no more trials than the budget has"
    assert sorted(record.generator or "" for record in found) == ["enqueued", "enqueued", "sobol"]
    leases = [claim(database) for _ in range(3)]
    assert {lease.params["lr"] for lease in leases[:2] if lease is not None} == {0.01, 0.02}


def test_guesses_stay_while_everything_else_is_planned_again(database: Database) -> None:
    steps = Steps(database, create(database, optimizer={"name": "tpe", "startup_trials": 3, "enqueue": [{"lr": 0.01}]}))
    for number in range(3):
        steps.run_until_idle(demand=1)
        lease = claim(database)
        assert lease is not None
        assert (lease.params["lr"] == 0.01) == (number == 0)
        finish(database, lease, 0.1 * number)
    _enqueue(database, {"lr": 0.02})
    steps.run_until_idle(demand=3)
    (guessed,) = [record for record in waiting(database, steps.study) if record.generator == "enqueued"]
    running = claim(database)
    assert running is not None
    assert running.trial_id == guessed.id
    _enqueue(database, {"lr": 0.03, "dropout": 0.5})
    steps.run_until_idle(demand=3)
    before = {record.id: record.params for record in waiting(database, steps.study)}
    finish(database, running, 0.9)
    Steps(database, steps.study).run_until_idle(demand=3)  # of a process that has just started
    steps.run_until_idle(demand=3)
    after = {record.id: record for record in waiting(database, steps.study)}
    assert [after[id].params for id in before if after[id].generator == "enqueued"] == [{"lr": 0.03, "dropout": 0.5}]
    with database.transaction() as connection:
        assert studies.get_by_id(connection, steps.study.id).waiting_guesses == ()
    assert steps.run_until_idle(demand=3) == 0


def test_the_next_trial_does_not_depend_on_how_many_workers_wait_behind_it(database: Database) -> None:
    found = {}
    for demand in (1, 4):
        settings = {"name": "tpe", "startup_trials": 4, "seed": 3}
        steps = Steps(database, create(database, name=f"for-{demand}", optimizer=settings, budget={"trials": 24}))
        for number in range(8):
            steps.run_until_idle(demand=demand)
            lease = claim(database, "w", study=steps.study.name)
            assert lease is not None
            finish(database, lease, 1 / (1 + abs(float(lease.params["lr"]) - 0.01)))
            found[demand, number] = lease.params
    assert [found[4, number] for number in range(8)] == [found[1, number] for number in range(8)]


@pytest.mark.parametrize("startup", [4, 24], ids=["a model", "start-up"])
def test_suggestions_keep_away_from_where_workers_report_failures(database: Database, startup: int) -> None:
    settings = {"name": "tpe", "startup_trials": startup}
    steps = Steps(database, create(database, optimizer=settings, budget={"trials": 24}))
    failed = []
    for number in range(24):
        steps.run_until_idle(demand=server.REPLANNED)
        optimizer = create_optimizer(steps.study.spec)
        optimizer.replay(records(database, steps.study))
        assert all(optimizer.expects_to_run(record.params) for record in waiting(database, steps.study))
        lease = claim(database, f"w{number % 2}")
        assert lease is not None
        failed.append(float(lease.params["lr"]) > 0.02)
        outcome = {"outcome": "failed", "metrics": {}, "failure_kind": "error"} if failed[-1] else {}
        finish(database, lease, 0.3, **outcome)
    assert sum(failed[:12]) >= 2
    assert sum(failed[12:]) <= 2


def test_a_study_that_starts_from_an_earlier_one_begins_with_its_best(database: Database) -> None:
    steps = Steps(database, create(database, name="old", optimizer={"name": "sobol"}, budget={"trials": 6}))
    tried = {}
    for number in range(6):
        steps.run_until_idle(demand=1)
        lease = claim(database)
        assert lease is not None
        tried[number] = lease.params
        finish(database, lease, 0.9 if number == 3 else 0.1)
    steps = Steps(database, create(database, optimizer={"name": "ax", "warm_start": ["old"]}))
    made = []
    for number in range(3):
        steps.run_until_idle(demand=1)
        (suggestion,) = waiting(database, steps.study)
        made.append(suggestion)
        lease = claim(database)
        assert lease is not None
        finish(database, lease, 0.1 * number)
    assert (made[0].params, made[0].generator) == (tried[3], "best of old")
    assert [record.generator for record in made[1:]] == ["sobol", "ax"]
    with database.transaction() as connection:
        taken = earlier.read(connection, steps.study.id)
        known = [record for record in trials.records(connection, steps.study.id) if record.id != made[2].id]
    optimizer = create_optimizer(steps.study.spec, earlier=taken)
    optimizer.replay(known)
    assert made[2].params == optimizer.ask()[0].params


def test_a_slow_model_does_not_keep_a_worker_waiting(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    database = steps.database
    steps.complete(3)
    monkeypatch.setattr(server, "PATIENCE_SECONDS", -1.0)  # every fit is too slow
    steps.take(demand=2)
    (quick,) = waiting(database, steps.study)
    assert quick.generator == "sobol (instead of tpe)"
    steps.take(demand=1)
    (refined,) = waiting(database, steps.study)
    assert (refined.id, refined.generator) == (quick.id, "tpe")


def test_a_successor_proposes_what_the_first_would_have(database: Database) -> None:
    study = create(database)
    first = Steps(database, study, "a")
    first.complete(4)
    known = records(database, study)
    with database.transaction() as connection:
        studies.release_generator(connection, study.id, "a")
    Steps(database, study, "b").run_until_idle(demand=1)
    (proposed,) = waiting(database, study)
    optimizer = create_optimizer(study.spec)
    optimizer.replay(known)
    assert proposed.params == optimizer.ask()[0].params


def test_a_successor_plans_again_what_came_before_a_result(database: Database) -> None:
    """The first owner dies after a result came in, before it has planned again what waits."""
    study = create(database)
    first = Steps(database, study, "a")
    first.complete(3)
    first.run_until_idle(demand=2)
    running = claim(database)
    assert running is not None
    (before,) = waiting(database, study)
    finish(database, running, 0.9)
    known = [record for record in records(database, study) if record.state is not TrialState.SUGGESTED]
    with database.transaction() as connection:
        studies.release_generator(connection, study.id, "a")
    Steps(database, study, "b").run_until_idle(demand=1)
    (after,) = waiting(database, study)
    optimizer = create_optimizer(study.spec)
    optimizer.replay(known)
    assert after.params == optimizer.ask()[0].params != before.params


def test_a_successor_leaves_what_was_planned_with_all_results(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create(database)
    first = Steps(database, study, "a")
    first.complete(4)
    first.run_until_idle(demand=2)
    before = [record.params for record in waiting(database, study)]
    with database.transaction() as connection:
        studies.release_generator(connection, study.id, "a")
    monkeypatch.setattr(Optimizer, "ask", lambda *_: pytest.fail("nothing is stale, so nothing is planned"))
    Steps(database, study, "b").run_until_idle(demand=2)
    assert [record.params for record in waiting(database, study)] == before


def test_what_an_owner_without_its_lease_proposes_is_refused(steps: Steps) -> None:
    with steps.database.transaction() as connection:
        generation = studies.acquire_generator(connection, steps.study.id, "a", 60)
        assert generation is not None
        studies.release_generator(connection, steps.study.id, "a")
        study = studies.get_by_id(connection, steps.study.id)
        assert studies.acquire_generator(connection, study.id, "b", 60) is not None
    assert steps.server.step(study, generation=generation, demand=2) is False
    assert waiting(steps.database, study) == []


def test_a_claim_that_comes_first_wins_over_planning_again(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suggestion is claimed while the model is fitted: it keeps its parameters."""
    database = steps.database
    steps.complete(3)
    steps.run_until_idle(demand=1)
    (planned,) = waiting(database, steps.study)
    fit = SuggestionQueue._fit

    def fit_slowly(self: SuggestionQueue, optimizer: object) -> list[Suggestion]:
        found = fit(self, optimizer)  # type: ignore[arg-type]  # passed through
        assert claim(database, "fast") is not None
        return found

    steps.server._planned_with[planned.id] = -1
    steps.server._looked_at = None
    monkeypatch.setattr(SuggestionQueue, "_fit", fit_slowly)
    steps.take(demand=0)
    (record,) = [record for record in records(database, steps.study) if record.id == planned.id]
    assert (record.state, record.params) == (TrialState.RUNNING, planned.params)


def test_a_paused_study_gets_no_suggestions(database: Database) -> None:
    study = create(database)
    steps = Steps(database, study)
    with database.transaction() as connection:
        studies.set_state(connection, study.name, StudyState.PAUSED, actor="test")
    assert steps.run_until_idle(demand=2) == 0
    assert waiting(database, study) == []


def test_when_the_large_device_leaves_what_waits_is_planned_for_the_small_one(database: Database) -> None:
    space = {
        "clip.frames": {"type": "int", "low": 8, "high": 64, "log": True},
        "batch_size": {"type": "int", "low": 4, "high": 64, "log": True},
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
    }
    steps = Steps(database, create(database, space=space, optimizer={"name": "sobol"}))
    steps.take(demand=1)
    for _ in range(8):
        steps.run_until_idle(demand=1)
        lease = claim(database, "large", memory_bytes=80 * 2**30)
        assert lease is not None
        need = lease.config["clip.frames"] * lease.config["batch_size"] * 2**24
        finish(database, lease, 0.5, peak_memory_bytes=need)
    steps.run_until_idle(demand=6)
    with database.transaction() as connection:
        connection.execute(text("UPDATE worker SET last_seen = '2000-01-01'"))
    assert claim(database, "small", memory_bytes=1) is None
    with database.transaction() as connection:
        connection.execute(text("UPDATE worker SET memory_bytes = :bytes WHERE name = 'small'"), {"bytes": 4 * 2**30})
    before = waiting(database, steps.study)
    steps.run_until_idle(demand=6)
    after = waiting(database, steps.study)[: server.REPLANNED]
    assert [record.params for record in before[: server.REPLANNED]] != [record.params for record in after]
    for record in after:
        need = float(record.params["clip.frames"]) * float(record.params["batch_size"]) * 2**24
        assert need <= 1.1 * 4 * 2**30
