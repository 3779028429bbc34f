"""The store and the end of studies serve a kind of task that they do not know."""

from __future__ import annotations

from hpo.store import Database, lifecycle, studies
from hpo.trial import Params, StudyState, Suggestion
from tests.unit.hpo.spec.counting import RAW, counting_registered

from .world import OWNER, end_finished_studies, finish, make_study, must_claim

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
        lease = must_claim(database, study)
        assert lease.config == study.spec.trial_config(PARAMS, number=0)
        assert lease.task == study.spec.task
        # The target is on a metric that is no objective: the task alone says that less of it is better.
        finish(database, lease, metrics={"misses": 3.0, "hits": 0.5})
        assert end_finished_studies(database) == []
        finish(database, must_claim(database, study), metrics={"misses": 1.0, "hits": 0.5})
        assert end_finished_studies(database) == [study.name]
        with database.transaction() as connection:
            ended = studies.get(connection, study.name)
        assert ended.state is StudyState.COMPLETED
        assert "reached the target (misses 2)" in str(ended.state_reason)
