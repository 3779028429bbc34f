"""The store and the end of studies serve a kind of task that they do not know."""

from __future__ import annotations

from uuid import uuid4

from hpo.protocol import ClaimRequest
from hpo.store import Database, lifecycle, studies, trials
from hpo.trial import CUSTOM, VIDEO, Params, StudyState, Suggestion
from tests.unit.hpo.spec.counting import RAW, counting_registered

from .world import OWNER, claim, end_finished_studies, finish, make_study, must_claim, suggest, worker

PARAMS: Params = {"speed": 1.0, "clip.frames": "few"}


def test_a_study_of_another_kind_runs_from_suggestion_to_target(database: Database) -> None:
    with counting_registered():
        raw = {key: value for key, value in RAW.items() if key != "name"}
        study = make_study(database, **{**raw, "objectives": [{"metric": "hits"}]})
        with database.transaction() as connection:
            generation = studies.acquire_generator(connection, study.id, OWNER, 3600)
            assert generation is not None
            proposed = [Suggestion(params=PARAMS, generator="sobol")] * 2
            lifecycle.suggest(connection, study.id, proposed, owner=OWNER, generation=generation)
        lease = must_claim(database, study, task_kinds=["counting"])
        assert lease.config == study.spec.trial_config(PARAMS, number=0)
        assert lease.task == study.spec.task
        # The target is on a metric that is no objective: the task alone says that less of it is better.
        finish(database, lease, metrics={"misses": 3.0, "hits": 0.5})
        assert end_finished_studies(database) == []
        finish(database, must_claim(database, study, task_kinds=["counting"]), metrics={"misses": 1.0, "hits": 0.5})
        assert end_finished_studies(database) == [study.name]
        with database.transaction() as connection:
            ended = studies.get(connection, study.name)
        assert ended.state is StudyState.COMPLETED
        assert "reached the target (misses 2)" in str(ended.state_reason)


CUSTOM_TASK = {"kind": "custom", "metrics": {"val_top1": "maximize"}}


def test_a_worker_gets_trials_of_its_kind_alone(database: Database) -> None:
    functions, videos = make_study(database, "functions", task=CUSTOM_TASK), make_study(database, "videos")
    for study in (functions, videos):
        suggest(database, study)
    assert claim(database, functions, name="trainer") is None
    assert claim(database, videos, name="caller", task_kinds=[CUSTOM]) is None
    assert must_claim(database, name="caller", task_kinds=[CUSTOM]).study == "functions"
    assert must_claim(database, name="trainer").study == "videos"


def test_suggestions_are_made_for_the_workers_that_can_run_them(database: Database) -> None:
    functions, videos = make_study(database, "functions", task=CUSTOM_TASK), make_study(database, "videos")
    kinds = {"trainer": VIDEO, "other trainer": VIDEO, "caller": CUSTOM}
    for name, kind in kinds.items():
        claim(database, name=name, task_kinds=[kind])
    with database.transaction() as connection:
        assert [trials.demand(connection, study.id) for study in (functions, videos)] == [1, 2]


def test_the_kind_that_all_workers_had_is_not_written() -> None:
    claims = [ClaimRequest(worker=worker(), lease_id=uuid4(), task_kinds=[kind]).to_json() for kind in (VIDEO, CUSTOM)]
    assert ["task_kinds" in one for one in claims] == [False, True]
