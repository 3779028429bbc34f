"""What a study takes over from an earlier one: configurations that fit, the best and some of the rest."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from hpo.results.warm_start import MAX_TRIALS_OF_A_STUDY, best_of, taken_over
from hpo.spec import StudySpec
from hpo.trial import EarlierTrial, TrialRecord, TrialState

from ..records import record_of, spec_with

LR: dict[str, Any] = {"type": "float", "low": 1e-3, "high": 0.1, "log": True}
MODELS = {"type": "categorical", "choices": ["r2plus1d_18", "slowfast_r50_4x16"]}
ALPHA = {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r50_4x16"]}}


def _spec(base: dict[str, Any], space: dict[str, Any], **sections: Any) -> StudySpec:
    task = {"dataset": {"root": "/data"}, "epochs": 9, "base": base}
    return spec_with(task=task, space={"lr": LR, **space}, **sections)


def _trial(params: dict[str, Any], value: float = 0.5, id: int = 0, **fields: Any) -> TrialRecord:
    return record_of(id, TrialState.COMPLETED, params=params, metrics={"val_top1": value}, **fields)


@pytest.mark.parametrize(
    ("base", "space", "params", "expected"),
    [
        ({}, {}, {"lr": 0.01}, {"lr": 0.01}),
        ({}, {}, {"lr": 0.5}, None),
        ({"batch_size": 16}, {}, {"lr": 0.01}, {"lr": 0.01, "batch_size": 16}),
        ({"batch_size": 128}, {}, {"lr": 0.01}, None),
        ({}, {"dropout": {"type": "float", "low": 0, "high": 0.8}}, {"lr": 0.01, "dropout": 0.3}, {"lr": 0.01}),
    ],
)
def test_a_configuration_is_that_of_the_new_space_or_left_out(
    base: dict[str, Any], space: dict[str, Any], params: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    earlier = _spec(base, {**space, "lr": {**LR, "high": 1.0}})
    wanted = {"batch_size": {"type": "int", "low": 1, "high": 64}}
    found = taken_over(_spec({}, wanted), earlier, [_trial(params)])
    # What nobody set has the default of the training run, here a batch of 8.
    assert [trial.params for trial in found] == ([] if expected is None else [{"batch_size": 8, **expected}])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"model": "r2plus1d_18"}, {"model": "r2plus1d_18"}),
        ({"model": "slowfast_r50_4x16", "model.alpha": 4}, {"model": "slowfast_r50_4x16", "model.alpha": 4}),
        ({"model": "slowfast_r50_4x16", "model.alpha": 16}, None),
    ],
)
def test_conditional_parameters_are_those_of_the_new_space(params: dict[str, Any], expected: Any) -> None:
    earlier = _spec({}, {"model": MODELS, "model.alpha": {**ALPHA, "choices": [4, 8, 16]}})
    found = taken_over(_spec({}, {"model": MODELS, "model.alpha": ALPHA}), earlier, [_trial({"lr": 0.01, **params})])
    assert [trial.params for trial in found] == ([] if expected is None else [{"lr": 0.01, **expected}])


def test_an_option_that_the_earlier_study_left_to_the_model_is_not_known() -> None:
    earlier, spec = _spec({}, {"model": MODELS}), _spec({}, {"model": MODELS, "model.alpha": ALPHA})
    records = [_trial({"lr": 0.01, "model": name}, id=id) for id, name in enumerate(MODELS["choices"])]
    assert [trial.params["model"] for trial in taken_over(spec, earlier, records)] == ["r2plus1d_18"]


def test_trials_of_another_model_than_the_one_that_is_fixed_are_left_out() -> None:
    spec = _spec({"model": "r2plus1d_18"}, {})
    records = [_trial({"lr": 0.01 * (id + 1), "model": name}, id=id) for id, name in enumerate(MODELS["choices"])]
    assert [trial.params for trial in taken_over(spec, _spec({}, {"model": MODELS}), records)] == [{"lr": 0.01}]


def test_what_did_not_complete_or_lacks_a_metric_is_left_out() -> None:
    spec = _spec({}, {}, constraints=["peak_memory_gib <= 8"])
    records = [
        _trial({"lr": 0.01}, id=0, peak_memory_bytes=2**32),
        _trial({"lr": 0.02}, id=1),
        record_of(2, TrialState.STOPPED, params={"lr": 0.03}, metrics={"val_top1": 0.1}, peak_memory_bytes=2**32),
        record_of(3, TrialState.COMPLETED, params={"lr": 0.04}, metrics={"val_loss": 0.1}, peak_memory_bytes=2**32),
    ]
    expected = EarlierTrial(study="study", params={"lr": 0.01}, metrics={"val_top1": 0.5, "peak_memory_gib": 4.0})
    assert taken_over(spec, _spec({}, {}), records) == [expected]


def test_of_many_the_best_and_a_spread_of_the_rest_are_taken() -> None:
    spec = _spec({}, {})
    # The number of a trial is its place among the values, shuffled by a step that is prime to 251.
    values = {id: (id * 97 % 251) / 251 for id in range(251)}
    records = [_trial({"lr": 0.001 + id * 1e-4}, value, id=id) for id, value in values.items()]
    found = taken_over(spec, spec, records)
    taken = sorted((trial.metrics["val_top1"] for trial in found), reverse=True)
    ordered = sorted(values.values(), reverse=True)
    assert len(found) == MAX_TRIALS_OF_A_STUDY
    assert taken[: MAX_TRIALS_OF_A_STUDY // 2] == ordered[: MAX_TRIALS_OF_A_STUDY // 2]
    assert taken[-1] == ordered[-1]
    assert max(a - b for a, b in pairwise(taken)) < 6 / 251
    assert [trial.params["lr"] for trial in found] == sorted(trial.params["lr"] for trial in found)


@pytest.mark.parametrize(("names", "most"), [(1, 100), (2, 75), (10, 15)])
def test_several_studies_share_what_is_taken(names: int, most: int) -> None:
    spec = _spec({}, {}, optimizer={"warm_start": [f"s{place}" for place in range(names)]})
    records = [_trial({"lr": 0.001 + id * 1e-4}, id / 251, id=id) for id in range(251)]
    assert len(taken_over(spec, _spec({}, {}), records)) == most


def test_the_best_of_each_study_keeps_the_constraints() -> None:
    spec = _spec({}, {}, constraints=["peak_memory_gib <= 8"])
    rows = [("a", 0.01, 0.5, 4.0), ("b", 0.02, 0.4, 4.0), ("a", 0.03, 0.9, 16.0), ("a", 0.04, 0.6, 4.0)]
    earlier = [
        EarlierTrial(study=study, params={"lr": lr}, metrics={"val_top1": value, "peak_memory_gib": memory})
        for study, lr, value, memory in rows
    ]
    assert [trial.params["lr"] for trial in best_of(spec, earlier)] == [0.04, 0.02]


def test_a_parameter_that_was_inactive_does_not_have_the_default_of_the_run() -> None:
    """The earlier study varied it for one model alone; what the other model had is not known."""
    dropout = {"type": "float", "low": 0.0, "high": 0.8}
    earlier = _spec({}, {"model": MODELS, "dropout": {**dropout, "when": {"model": ["slowfast_r50_4x16"]}}})
    spec = _spec({}, {"model": MODELS, "dropout": dropout})
    records = [
        _trial({"lr": 0.01, "model": "r2plus1d_18"}, id=0),
        _trial({"lr": 0.02, "model": "slowfast_r50_4x16", "dropout": 0.3}, id=1),
    ]
    assert [trial.params["lr"] for trial in taken_over(spec, earlier, records)] == [0.02]
