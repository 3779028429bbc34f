"""When the optimizer process computes what matters in a study, and where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hpo.errors import StoreUnavailableError
from hpo.optimizer import insight
from hpo.optimizer.generator import GeneratorError
from hpo.optimizer.importance import Importance, Trend
from hpo.service import importance, optimizer_process
from hpo.service.finishing import end_finished_studies
from hpo.service.importance import ImportanceKeeper
from hpo.service.suggestion_queue import SuggestionQueue
from hpo.spec import parse_spec
from hpo.store import Database, lifecycle, studies
from hpo.store.studies import StudyRow
from hpo.trial import StudyState, Suggestion, TrialRecord

from .studies import SPEC, claim, create, finish, optimizing
from .test_optimizer_process import _run_trials, until


class Models:
    """In the place of the models: they remember with how many trials they were fitted."""

    fitted: list[int]

    def __init__(self, spec: Any, records: Sequence[TrialRecord], earlier: object = ()) -> None:
        type(self).fitted.append(len(records))

    def importances(self, metric: str) -> list[Importance]:
        """Return the same for every metric."""
        return [
            Importance(parameter="lr", share=0.8, low=0.6, high=0.9, trend=Trend.HIGHEST, at=0.01),
            Importance(parameter="dropout", share=0.2),
        ]

    def explained(self, metric: str) -> float | None:
        """Return the same for every metric."""
        return 0.75


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> type[Models]:
    """The models, replaced."""
    monkeypatch.setattr(insight, "Insight", Models)
    Models.fitted = []
    return Models


def _complete(database: Database, study: StudyRow, count: int) -> None:
    for number in range(count):
        with database.transaction() as connection:
            generation = studies.acquire_generator(connection, study.id, "test", 60)
            assert generation is not None
            params = {"lr": 0.001 * (number + 1), "dropout": 0.1}
            lifecycle.suggest(
                connection,
                study.id,
                [Suggestion(params=params, generator="sobol")],
                owner="test",
                generation=generation,
            )
        lease = claim(database)
        assert lease is not None
        finish(database, lease, 0.1)


def _read(database: Database, study: StudyRow) -> StudyRow:
    with database.transaction() as connection:
        return studies.get_by_id(connection, study.id)


def _last(database: Database, study: StudyRow) -> Any:
    with database.transaction() as connection:
        return importance.last(connection, study.id)


def test_it_is_computed_after_every_tenth_outcome_and_never_twice(database: Database, models: type[Models]) -> None:
    study = create(database, optimizer={"name": "ax"}, budget={"trials": 40})
    keeper = ImportanceKeeper(database, "a")
    _complete(database, study, 9)
    assert not keeper.keep(_read(database, study))
    _complete(database, study, 1)
    assert keeper.keep(_read(database, study))
    assert not keeper.keep(_read(database, study))
    found = _last(database, study)
    assert found["outcomes"] == 10
    assert found["message"] == "what matters most for val_top1: lr 80%, dropout 20%"
    assert found["explained"] == {"val_top1": 0.75}
    first = {"parameter": "lr", "share": 0.8, "low": 0.6, "high": 0.9, "trend": "highest at", "at": 0.01}
    assert found["importances"]["val_top1"][0] == first
    # Another process continues where the first one ended.
    _complete(database, study, 9)
    other = ImportanceKeeper(database, "b")
    assert not other.keep(_read(database, study))
    _complete(database, study, 1)
    assert other.keep(_read(database, study))
    assert _last(database, study)["outcomes"] == 20
    assert models.fitted == [10, 20]


@pytest.mark.parametrize(
    ("explained", "sentence"),
    [
        (0.5, "what matters most for val_top1: lr 80%, dropout 20%"),
        (
            -0.2,
            "the model explains next to nothing of val_top1 yet; what seems to matter most: lr 80%, dropout 20%",
        ),
        (None, "val_top1 is the same in all trials"),
    ],
)
def test_the_sentence_says_first_where_the_model_knows_nothing(explained: float | None, sentence: str) -> None:
    spec = parse_spec(SPEC)
    rows = [Importance(parameter="lr", share=0.8), Importance(parameter="dropout", share=0.2)]
    assert importance.sentence(spec, {"val_top1": rows}, {"val_top1": explained}) == sentence


def test_it_is_computed_at_the_end_for_what_came_since(database: Database, models: type[Models]) -> None:
    study = create(database, optimizer={"name": "ax"}, budget={"trials": 6})
    _complete(database, study, 6)
    with database.transaction() as connection:
        studies.set_state(connection, study.name, StudyState.STOPPED, actor="test")
    assert ImportanceKeeper(database, "a").keep(_read(database, study))
    assert _last(database, study)["outcomes"] == 6


@pytest.mark.parametrize(("name", "count"), [("tpe", 10), ("ax", 4)])
def test_it_is_left_to_the_command_where_there_is_no_model(
    database: Database, models: type[Models], name: str, count: int
) -> None:
    study = create(database, optimizer={"name": name}, budget={"trials": 40})
    _complete(database, study, count)
    with database.transaction() as connection:
        studies.set_state(connection, study.name, StudyState.STOPPED, actor="test")
    assert not ImportanceKeeper(database, "a").keep(_read(database, study))
    assert _last(database, study) is None
    assert models.fitted == []


def test_models_that_cannot_be_fitted_record_nothing_and_are_not_tried_again_at_once(
    database: Database, models: type[Models], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Models, metric: str) -> list[Importance]:
        raise GeneratorError("no")

    monkeypatch.setattr(Models, "importances", refuse)
    study = create(database, optimizer={"name": "ax"}, budget={"trials": 40})
    _complete(database, study, 10)
    keeper = ImportanceKeeper(database, "a")
    keeper.keep(_read(database, study))
    keeper.keep(_read(database, study))
    assert models.fitted == [10]
    assert _last(database, study) is None


def test_what_the_store_could_not_keep_is_computed_again(
    database: Database, models: type[Models], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailableError("the database is away")

    study = create(database, optimizer={"name": "ax"}, budget={"trials": 40})
    _complete(database, study, 10)
    keeper = ImportanceKeeper(database, "a")
    with monkeypatch.context() as away:
        away.setattr("hpo.store.events.append", refuse)
        with pytest.raises(StoreUnavailableError):
            keeper.keep(_read(database, study))
    assert keeper.keep(_read(database, study))
    assert _last(database, study)["outcomes"] == 10


def test_the_process_computes_it_when_a_study_that_it_served_has_ended(
    database: Database, models: type[Models]
) -> None:
    study = create(database, optimizer={"name": "ax", "startup_trials": 6}, budget={"trials": 6})
    with optimizing(database):
        _run_trials(database, 6)
        end_finished_studies(database)
        found = until(lambda: _last(database, study), "the importances")
    assert found["outcomes"] == 6


def test_all_studies_get_their_turn_between_what_matters_in_one_and_in_the_next(
    database: Database, models: type[Models], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def serve(self: SuggestionQueue, study: StudyRow, **_: Any) -> bool:
        done.append(f"serve {study.name}")
        return False

    def compute(self: Models, spec: Any, records: Sequence[TrialRecord], earlier: object = ()) -> None:
        done.append(f"compute {spec.name}")

    monkeypatch.setattr(SuggestionQueue, "step", serve)
    monkeypatch.setattr(Models, "__init__", compute)
    found = [create(database, name=name, optimizer={"name": "ax"}, budget={"trials": 40}) for name in ("a", "b")]
    for study in found:
        _complete(database, study, 10)
        with database.transaction() as connection:
            studies.release_generator(connection, study.id, "test")
    loop = optimizer_process._Loop(database, "a")
    try:
        assert [loop.round() for _ in range(3)] == [True, True, False]
        turn = ["serve a", "serve b"]
        assert done == [*turn, "compute a", *turn, "compute b"], "in the third round nothing has changed"
        loop._importances = ImportanceKeeper(database, "a")
        loop._importances._last = {study.id: 9 for study in found}  # one outcome more than were counted last
        for study in found:
            with database.transaction() as connection:
                studies.set_state(connection, study.name, StudyState.STOPPED, actor="test")
        end_finished_studies(database)
        done.clear()
        assert [loop.round() for _ in range(3)] == [True, True, False]
        assert done == ["compute a", "compute b"], "those that have ended are all asked for once"
    finally:
        loop.end()
