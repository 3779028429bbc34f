"""The Optuna view of our studies: what optuna-dashboard and Optuna's own functions read from it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState

from hpo.errors import ConflictError
from hpo.optuna_view.storage import StudyStorage
from hpo.optuna_view.trials import distributions
from hpo.trial import FailureKind, TrialRecord, TrialState

from ..records import MOMENT, PARAMS, record_of, spec_with
from .memory_source import MemorySource

SLOWFAST = {"lr": 0.1, "weight_decay": 1e-5, "model": "slowfast_r50_4x16", "model.alpha": 8}
RECORDS = [
    record_of(10, TrialState.COMPLETED, values=[0.2, 0.5], metrics={"val_top1": 0.5}, number=0),
    record_of(11, TrialState.COMPLETED, values=[0.3, 0.7], metrics={"val_top1": 0.7}, number=1, params=SLOWFAST),
    record_of(12, TrialState.STOPPED, values=[0.1, 0.15], number=2, gpu_seconds=360.0, peak_memory_bytes=2**30),
    record_of(13, TrialState.FAILED, values=[0.1], number=3, failure_kind=FailureKind.OOM, failure_message="too big"),
    record_of(14, TrialState.WITHDRAWN, number=4),
    record_of(15, TrialState.RUNNING, values=[0.4], number=5, worker="gpu-0", generator="ax", predicted_mean=0.6),
    record_of(16, TrialState.PAUSED, values=[0.4], number=6, params=SLOWFAST),
    record_of(17, TrialState.SUGGESTED, number=7),
]


def _storage(records: list[TrialRecord] | None = None, **sections: Any) -> StudyStorage:
    return StudyStorage(MemorySource(spec_with(**sections), RECORDS if records is None else records))


# ---------------------------------------------------------------- Optuna itself


def test_states_and_numbers() -> None:
    trials = _storage().get_all_trials(0)
    waiting, running = OptunaState.WAITING, OptunaState.RUNNING
    finished = [OptunaState.COMPLETE, OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL]
    assert [trial.state for trial in trials] == [*finished, running, waiting, waiting]
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 5, 6, 7]
    assert [trial._trial_id for trial in trials] == [10, 11, 12, 13, 15, 16, 17]
    assert trials[2].value == 0.15


def test_every_trial_passes_optunas_own_validation() -> None:
    for trial in _storage().get_all_trials(0):
        trial._validate()


def test_a_study_of_optuna_reads_it() -> None:
    study = optuna.load_study(study_name="study", storage=_storage())
    assert study.best_trial.number == 1
    assert study.metric_names == ["val_top1"]
    assert study.trials[1].params == SLOWFAST
    assert study.trials[0].params == PARAMS  # model.alpha is absent, not empty
    assert len(study.trials_dataframe()) == 7


def test_distributions_follow_the_space() -> None:
    space = {
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.75, "step": 0.2},
        "batch_size": {"type": "int", "low": 2, "high": 64, "log": True},
        "clip.stride": {"type": "int", "low": 1, "high": 7, "step": 3},
        "nesterov": {"type": "categorical", "choices": [True, False]},
        "clip.frames": {"type": "ordinal", "choices": [8, 16, 32]},
    }
    assert distributions(spec_with(space=space)) == {
        "lr": FloatDistribution(1e-4, 0.3, log=True),
        "dropout": FloatDistribution(0.0, 0.6, step=0.2),
        "batch_size": IntDistribution(2, 64, log=True),
        "clip.stride": IntDistribution(1, 7, step=3),
        "nesterov": CategoricalDistribution([True, False]),
        "clip.frames": CategoricalDistribution([8, 16, 32]),
    }


def test_user_attributes_say_what_happened() -> None:
    attrs = {trial.number: trial.user_attrs for trial in _storage().get_all_trials(0)}
    assert attrs[2]["gpu_hours"] == pytest.approx(0.1)
    assert attrs[2]["peak_memory_gib"] == 1.0
    assert (attrs[3]["failure_kind"], attrs[3]["failure_message"]) == ("oom", "too big")
    assert (attrs[5]["worker"], attrs[5]["generator"], attrs[5]["predicted_mean"]) == ("gpu-0", "ax", 0.6)
    assert attrs[5]["epoch"] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outcomes_that_are_not_finite_are_failures(bad: float) -> None:
    records = [*RECORDS, record_of(20, TrialState.COMPLETED, values=[0.4, bad], metrics={"val_top1": bad}, number=8)]
    storage = _storage(records)
    last = storage.get_all_trials(0)[-1]
    assert (last.state, last.values, last.intermediate_values) == (OptunaState.FAIL, None, {1: 0.4})
    assert storage.get_best_trial(0).number == 1


def test_the_best_trial_is_feasible() -> None:
    def timed(id: int, value: float, seconds: float | None) -> TrialRecord:
        metrics = {"val_top1": value} | ({} if seconds is None else {"epoch_seconds": seconds})
        return record_of(id, TrialState.COMPLETED, metrics=metrics, params={**PARAMS, "lr": 0.01 * (id + 1)})

    records = [timed(0, 0.5, 9), timed(1, 0.9, 30), timed(2, 0.6, 10), timed(3, 0.95, None)]
    storage = _storage(records, constraints=["epoch_seconds <= 10"])
    assert storage.get_best_trial(0).number == 2
    assert storage.get_all_trials(0)[1].system_attrs["constraints"] == [20.0]
    assert optuna.load_study(study_name="study", storage=storage).best_trial.number == 2
    # While nothing is feasible, the dashboard's page still needs an answer: the nearest.
    assert _storage(records[1:2] + records[3:], constraints=["epoch_seconds <= 10"]).get_best_trial(0).number == 1


def test_best_of_a_minimized_objective() -> None:
    minimized = [{"metric": "val_top1", "direction": "minimize"}]
    assert _storage(RECORDS[:2], objectives=minimized).get_best_trial(0).number == 0


@pytest.mark.parametrize(("direction", "best"), [("minimize", 1), ("maximize", 0)])
def test_a_value_of_exactly_0_is_a_value_like_any_other(direction: str, best: int) -> None:
    values = (0.5, 0.0)
    records = [
        record_of(
            number,
            TrialState.COMPLETED,
            values=[value],
            metrics={"val_top1": value},
            params={**PARAMS, "lr": 0.01 * (number + 1)},
        )
        for number, value in enumerate(values)
    ]
    storage = _storage(records, objectives=[{"metric": "val_top1", "direction": direction}])
    assert storage.get_best_trial(0).number == best


def test_a_stopped_trial_is_the_best_while_none_has_completed() -> None:
    assert _storage(RECORDS[2:]).get_best_trial(0).number == 2
    with pytest.raises(ValueError, match="completed"):
        _storage(RECORDS[3:]).get_best_trial(0)


def test_unknown_ids_are_key_errors() -> None:
    storage = _storage()
    calls: list[Callable[[], object]] = [
        lambda: storage.get_study_id_from_name("other"),
        lambda: storage.get_study_name_from_id(9),
        lambda: storage.get_all_trials(9),
        lambda: storage.get_trial(14),  # withdrawn
        lambda: storage.get_trial_id_from_study_id_trial_number(0, 4),
    ]
    for call in calls:
        with pytest.raises(KeyError):
            call()
    assert storage.get_trial_id_from_study_id_trial_number(0, 5) == 15
    assert storage.get_trial(15).number == 5


def test_writes_are_refused_with_a_sentence() -> None:
    storage = _storage()
    study = optuna.load_study(study_name="study", storage=storage)
    calls: list[Callable[[], object]] = [
        study.ask,
        lambda: study.enqueue_trial({"lr": 0.1}),
        lambda: study.set_user_attr("a", 1),
        lambda: optuna.create_study(storage=storage, study_name="new"),
        lambda: optuna.delete_study(storage=storage, study_name="study"),
        lambda: storage.set_trial_state_values(15, OptunaState.COMPLETE, [1.0]),
        lambda: storage.set_trial_intermediate_value(15, 2, 1.0),
        lambda: storage.set_trial_param(15, "lr", 0.1, FloatDistribution(0, 1)),
        lambda: storage.set_trial_user_attr(15, "a", 1),
        lambda: storage.set_trial_system_attr(15, "a", 1),
        lambda: storage.set_study_system_attr(0, "dashboard:form_widgets:v2", {}),
    ]
    for call in calls:
        with pytest.raises(ConflictError, match="read-only"):
            call()


# ---------------------------------------------------------------- optuna-dashboard


@pytest.fixture(scope="module")
def make_dashboard() -> Callable[[StudyStorage], httpx.Client]:
    """Make a client of a real dashboard over a storage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and others while they are imported
        from optuna_dashboard import wsgi

    def make(storage: StudyStorage) -> httpx.Client:
        return httpx.Client(transport=httpx.WSGITransport(app=wsgi(storage)), base_url="http://localhost")

    return make


@pytest.fixture
def dashboard(make_dashboard: Callable[[StudyStorage], httpx.Client]) -> Iterator[httpx.Client]:
    """A dashboard over a study with a trial in every state."""
    with make_dashboard(_storage()) as client:
        yield client


def _json(client: httpx.Client, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(answer.text, parse_constant=refuse)


def test_the_dashboard_lists_and_shows_a_study(dashboard: httpx.Client) -> None:
    (study,) = _json(dashboard, "/api/studies")["study_summaries"]
    assert (study["study_name"], study["directions"]) == ("study", ["maximize"])
    detail = _json(dashboard, "/api/studies/0")
    states = ["Complete", "Complete", "Pruned", "Fail", "Running", "Waiting", "Waiting"]
    assert [trial["state"] for trial in detail["trials"]] == states
    assert [trial["number"] for trial in detail["best_trials"]] == [1]
    assert detail["objective_names"] == ["val_top1"]
    assert {entry["name"] for entry in detail["union_search_space"]} == {"lr", "weight_decay", "model", "model.alpha"}
    assert "model.alpha" not in {entry["name"] for entry in detail["intersection_search_space"]}
    assert detail["trials"][1]["intermediate_values"] == [{"step": 1, "value": 0.3}, {"step": 2, "value": 0.7}]
    assert {"key": "worker", "value": "gpu-0"} in detail["trials"][4]["user_attrs"]
    waiting = {entry["name"]: entry["param_external_value"] for entry in detail["trials"][6]["params"]}
    assert waiting["model"] == "r2plus1d_18"
    assert len(_json(dashboard, "/api/studies/0?after=5")["trials"]) == 2


def test_the_dashboard_survives_nan_and_infeasible_trials(
    make_dashboard: Callable[[StudyStorage], httpx.Client],
) -> None:
    bad = record_of(20, TrialState.COMPLETED, values=[math.nan], metrics={"val_top1": math.nan}, number=8)
    storage = _storage([*RECORDS, bad], constraints=["epoch_seconds <= 10"])
    with make_dashboard(storage) as client:
        detail = _json(client, "/api/studies/0")
        assert detail["trials"][-1]["state"] == "Fail"
        assert all(violation > 0 for violation in detail["trials"][0]["constraints"])


def test_the_dashboard_shows_a_front(make_dashboard: Callable[[StudyStorage], httpx.Client]) -> None:
    spec = {"objectives": [{"metric": "val_top1"}, {"metric": "epoch_seconds"}]}
    points = [(0.5, 10.0), (0.7, 20.0), (0.6, 30.0)]
    records = [
        record_of(i, TrialState.COMPLETED, metrics={"val_top1": top1, "epoch_seconds": seconds})
        for i, (top1, seconds) in enumerate(points)
    ]
    records.append(record_of(3, TrialState.STOPPED, values=[0.1]))
    with make_dashboard(_storage(records, **spec)) as client:
        detail = _json(client, "/api/studies/0")
        assert detail["directions"] == ["maximize", "minimize"]
        assert {trial["number"] for trial in detail["best_trials"]} == {0, 1}
        assert detail["trials"][0]["values"] == [0.5, 10.0]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_dashboards_other_reads_work(make_dashboard: Callable[[StudyStorage], httpx.Client]) -> None:
    records = [
        record_of(i, TrialState.COMPLETED, metrics={"val_top1": i / 20}, params={**PARAMS, "lr": 1e-3 * (i + 1)})
        for i in range(12)
    ]
    with make_dashboard(_storage(records)) as client:
        (importances,) = _json(client, "/api/studies/0/param_importances")["param_importances"]
        assert {entry["name"] for entry in importances} == {"lr", "weight_decay", "model"}
        assert client.get("/csv/0").text.count("\n") >= 12
        assert client.get("/dashboard").status_code == 200


def test_notes_are_kept(make_dashboard: Callable[[StudyStorage], httpx.Client]) -> None:
    storage = _storage()
    with make_dashboard(storage) as client:
        assert client.put("/api/studies/0/note", json={"version": 1, "body": "promising"}).status_code == 204
        assert client.put("/api/studies/0/15/note", json={"version": 1, "body": "look"}).status_code == 204
        detail = _json(client, "/api/studies/0")
    assert detail["note"]["body"] == "promising"
    assert detail["trials"][4]["note"]["body"] == "look"


def test_finished_before_it_started_is_shown_all_the_same(
    make_dashboard: Callable[[StudyStorage], httpx.Client],
) -> None:
    """A trial that failed before anybody ran it has no start of its own."""
    record = record_of(0, TrialState.FAILED, started_at=None, created_at=MOMENT, failure_kind=FailureKind.LOST)
    with make_dashboard(_storage([record])) as client:
        assert _json(client, "/api/studies/0")["trials"][0]["state"] == "Fail"


def test_the_view_does_not_share_its_trials() -> None:
    storage = _storage()
    storage.get_all_trials(0)[0].user_attrs["touched"] = 1
    assert "touched" not in storage.get_all_trials(0)[0].user_attrs
