"""Suggestions by BoTorch, alone and through Ax's generation strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hpo.optimizer.ax_generator import AxGenerator, known_warnings
from hpo.optimizer.bayes import models
from hpo.optimizer.bayes.schedule import scheduled
from hpo.optimizer.cube import decode, key_of
from hpo.optimizer.generator import GeneratorError
from hpo.optimizer.history import History
from hpo.optimizer.surrogate import plan
from hpo.optimizer.surrogate.search import deterministic
from hpo.spec import StudySpec
from hpo.trial import EarlierTrial, FailureKind, Params, Suggestion, TrialRecord, TrialState

from ...records import record_of, spec_with
from .alone import BoTorchGenerator
from .stock import InputDataError

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.8},
    "clip.stride": {"type": "int", "low": 1, "high": 6},
    "model": {"type": "categorical", "choices": ["a", "b", "c"]},
    "model.depth": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": ["b"]}},
}


def _score(params: Params) -> dict[str, float]:
    lr, dropout, stride = float(params["lr"]), float(params["dropout"]), int(params["clip.stride"])
    value = 0.9 - ((math.log10(lr) + 2) / 3) ** 2 - (dropout - 0.3) ** 2 - 0.01 * (stride - 3) ** 2
    value -= {"a": 0.1, "b": 0.2, "c": 0.3}[str(params["model"])]
    value += 0.2 - 0.5 * (float(params["model.depth"]) - 0.6) ** 2 if "model.depth" in params else 0.0
    return {"val_top1": value, "epoch_seconds": 1 + 5 * dropout}


def _completed(
    spec: StudySpec, n: int, seed: int = 0, score: Callable[[Params], dict[str, float]] = _score
) -> list[TrialRecord]:
    rng = np.random.default_rng(seed)
    points = [decode(spec, rng.random(len(spec.space)).tolist()) for _ in range(n)]
    return [
        record_of(id, TrialState.COMPLETED, params=params, metrics=score(params)) for id, params in enumerate(points)
    ]


def _records(spec: StudySpec, n: int) -> list[TrialRecord]:
    """Return completed trials; then one stopped, one failed, one paused and one running."""
    rng = np.random.default_rng(0)
    points = [decode(spec, rng.random(len(spec.space)).tolist()) for _ in range(n + 4)]
    found = [record_of(id, TrialState.COMPLETED, params=points[id], metrics=_score(points[id])) for id in range(n)]
    curve = {step: {name: value * step / 9 for name, value in _score(points[n]).items()} for step in (1, 2, 3)}
    found.append(replace(record_of(n, TrialState.STOPPED, params=points[n]), curve=curve, metrics=curve[3]))
    found.append(record_of(n + 1, TrialState.FAILED, params=points[n + 1], failure_kind=FailureKind.DIVERGED))
    found.append(replace(record_of(n + 2, TrialState.PAUSED, params=points[n + 2]), curve=curve))
    found.append(record_of(n + 3, TrialState.RUNNING, params=points[n + 3]))
    return found


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"constraints": ["epoch_seconds <= 3"]},
        {"objectives": [{"metric": "val_top1"}, {"metric": "epoch_seconds"}], "constraints": ["val_top1 >= 0.2"]},
    ],
    ids=["one objective", "a constraint", "two objectives"],
)
@pytest.mark.usefixtures("short_search")
def test_ax_proposes_what_the_models_propose_alone(sections: dict[str, Any]) -> None:
    spec = spec_with(space=SPACE, **sections)
    history = History(spec, _records(spec, 14))
    through_ax = AxGenerator().propose(history, 2)
    alone = BoTorchGenerator("ax").propose(history, 1)
    assert through_ax[0] == alone[0]
    keys = {key_of(suggestion.params) for suggestion in through_ax}
    assert len(keys) == 2
    assert not keys & history.taken
    assert [suggestion.generator for suggestion in through_ax] == ["ax", "ax"]


@pytest.mark.usefixtures("short_search")
def test_proposals_depend_on_the_history_alone() -> None:
    spec = spec_with(space=SPACE)
    records = _records(spec, 42)
    lived = AxGenerator()
    lived.propose(History(spec, records[:8]), 1)
    withdrawn = record_of(90, TrialState.SUGGESTED, params=lived.propose(History(spec, records[:9]), 1)[0].params)
    lived.propose(History(spec, [*records[:9], withdrawn]), 1)
    expected = lived.propose(History(spec, records), 2)
    models._fits.clear()
    models._chosen.clear()
    assert AxGenerator().propose(History(spec, list(reversed(records))), 2) == expected


def test_trials_of_an_earlier_study_are_learned_from() -> None:
    """Five results of this study say nothing about the peak; thirty of an earlier one show it."""
    spec = spec_with(space=SPACE)
    earlier = [
        EarlierTrial(study="before", params=record.params, metrics=record.metrics)
        for record in _records(spec, 30)
        if record.metrics and record.state is TrialState.COMPLETED
    ]
    (suggestion,) = AxGenerator().propose(History(spec, _records(spec, 3)[:3], earlier=earlier), 1)
    assert _score(suggestion.params)["val_top1"] > 0.75


@pytest.mark.parametrize("generator", [AxGenerator(), BoTorchGenerator()], ids=["ax", "alone"])
def test_a_completed_guess_has_its_values(generator: AxGenerator | BoTorchGenerator) -> None:
    spec = spec_with(space=SPACE)
    guess: Params = {"model": "a", "lr": 0.05}
    found = generator.complete(History(spec, _records(spec, 20)), guess).params
    assert guess.items() <= found.items()
    assert set(found) == {"lr", "dropout", "clip.stride", "model"}
    best = _score({**guess, "dropout": 0.3, "clip.stride": 3})["val_top1"]
    assert _score(found)["val_top1"] > best - 0.1


def test_no_completion_of_a_guess_has_a_better_acquisition() -> None:
    spec = spec_with(space=SPACE)
    history = History(spec, _records(spec, 14))
    guess: Params = {"model": "a", "lr": 0.05}
    found = AxGenerator().complete(history, guess).params
    grid = [{**guess, "dropout": 0.05 * n, "clip.stride": stride} for n in range(17) for stride in range(1, 7)]
    with deterministic(spec.optimizer.seed):
        model = plan.Plan(history)
        acquisition = model.acquisition()
        rows = np.stack([model.space.encode(params) for params in [found, *grid]])
        values = acquisition(torch.as_tensor(rows)[:, None]).detach().numpy()
    assert guess.items() <= found.items()
    assert values[0] >= values[1:].max() - 1e-3
    assert np.ptp(values) > 0.5


def _searched(spec: StudySpec, records: list[TrialRecord], count: int) -> list[TrialRecord]:
    """Return the records with those of `count` more trials, each proposed with the results of all before it."""
    records = list(records)
    for _ in range(count):
        (suggestion,) = BoTorchGenerator().propose(History(spec, records), 1)
        metrics = _score(suggestion.params)
        records.append(record_of(len(records), TrialState.COMPLETED, params=suggestion.params, metrics=metrics))
    return records


@pytest.mark.slow
def test_the_peak_of_a_conditional_space_is_found() -> None:
    spec = spec_with(space=SPACE)
    records = _searched(spec, _completed(spec, 8), 16)
    best = max(records, key=lambda record: (record.metrics or {})["val_top1"])
    assert (best.metrics or {})["val_top1"] > 0.88
    assert best.params["model"] == "b"


@pytest.mark.slow
def test_two_objectives_are_improved_under_a_constraint() -> None:
    objectives = [{"metric": "val_top1"}, {"metric": "epoch_seconds"}]
    spec = spec_with(space=SPACE, objectives=objectives, constraints=["val_top1 >= 0.2"])
    found = _searched(spec, _completed(spec, 14), 7)[14:]
    outcomes = [record.metrics or {} for record in found]
    assert sum(outcome["val_top1"] >= 0.2 for outcome in outcomes) >= 6
    front = [
        o
        for o in outcomes
        if not any(p["val_top1"] > o["val_top1"] and p["epoch_seconds"] < o["epoch_seconds"] for p in outcomes)
    ]
    assert np.ptp([outcome["epoch_seconds"] for outcome in front]) > 0.5


def test_a_constraint_on_the_objective_may_lie_far_above_the_best() -> None:
    """Beyond the ceiling of a log of the gap; and nothing near it can be hoped for."""
    spec = spec_with(space=SPACE, constraints=["val_top1 >= 0.95"])
    records = _completed(spec, 8, seed=4)
    assert max((record.metrics or {})["val_top1"] for record in records) < 0.71
    found = _searched(spec, records, 4)[8:]
    assert max((record.metrics or {})["val_top1"] for record in found) > 0.76


def test_many_trials_are_fitted_from_some_of_them() -> None:
    assert [scheduled(n) for n in (1, 39, 40, 41, 79, 80, 83, 1000)] == [1, 39, 40, 40, 78, 80, 80, 992]
    spec = spec_with(space=SPACE)
    (suggestion,) = BoTorchGenerator().propose(History(spec, _completed(spec, 400)), 1)
    assert _score(suggestion.params)["val_top1"] > 0.85


@pytest.mark.usefixtures("short_search")
def test_a_constrained_metric_may_change_its_sign_between_two_fits() -> None:
    """Its logarithm suits the 40 outcomes that the shape is chosen from, but not the 41st."""
    spec = spec_with(space=SPACE, constraints=["epoch_seconds <= 9"])
    records = _completed(spec, 41, score=lambda p: {**_score(p), "epoch_seconds": math.exp(4 * float(p["dropout"]))})
    below = {**(records[40].metrics or {}), "epoch_seconds": -1.0}
    history = History(spec, [*records[:40], replace(records[40], metrics=below)])
    (suggestion,) = BoTorchGenerator().propose(history, 1)
    spec.check_params(suggestion.params)


@pytest.mark.parametrize("value", [0.5, 1e-12])
@pytest.mark.usefixtures("short_search")
def test_outcomes_that_are_all_the_same(value: float) -> None:
    spec = spec_with(space=SPACE)
    records = _completed(spec, 8, score=lambda _: {"val_top1": value})
    assert len(BoTorchGenerator().propose(History(spec, records), 2)) == 2


def test_one_in_three_plans_has_the_second_view(monkeypatch: pytest.MonkeyPatch) -> None:
    views = []

    def spy(*arguments: Any, second_view: bool) -> Any:
        views.append(second_view)
        return models.model(*arguments, second_view=second_view)

    monkeypatch.setattr(plan, "model", spy)
    spec = spec_with(space=SPACE)
    records = _completed(spec, 8)
    for count in range(3, 9):
        plan.Plan(History(spec, records[:count]))
    assert views in ([place % 3 == first for place in range(6)] for first in range(3))


# ---------------------------------------------------------------- predictions


def test_predictions_are_in_the_unit_of_the_metric() -> None:
    spec = spec_with(space=SPACE, objectives=[{"metric": "val_loss"}])
    records = _completed(spec, 40, score=lambda params: {"val_loss": math.exp(-8 * _score(params)["val_top1"])})
    (suggestion,) = BoTorchGenerator().propose(History(spec, records), 1)
    truth = math.exp(-8 * _score(suggestion.params)["val_top1"])
    assert suggestion.predicted_mean is not None
    assert suggestion.predicted_sd is not None
    assert abs(suggestion.predicted_mean - truth) < 4 * suggestion.predicted_sd + 0.02


@pytest.mark.parametrize(
    "constraint", ["epoch_seconds <= 2", "epoch_seconds >= 2", "val_top1 >= 0.5", "val_top1 <= 0.5"]
)
def test_suggestions_carry_the_probability_of_the_constraints(constraint: str) -> None:
    """Also of one that points against its objective."""
    spec = spec_with(space=SPACE, constraints=[constraint])
    (suggestion,) = BoTorchGenerator().propose(History(spec, _completed(spec, 50)), 1)
    assert spec.constraints[0].violation(_score(suggestion.params)[spec.constraints[0].metric]) <= 0.1
    assert suggestion.predicted_feasibility is not None
    assert 0.3 < suggestion.predicted_feasibility <= 1


def test_predictions_that_are_not_there_or_not_finite_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**sections: Any) -> Suggestion:
        spec = spec_with(space=SPACE, **sections)
        records = _completed(spec, 12)
        return plan.Plan(History(spec, records)).suggestion(records[0].params, "ax")

    assert made().predicted_mean is not None
    assert made().predicted_feasibility is None
    chance = made(constraints=["epoch_seconds <= 4"]).predicted_feasibility
    assert chance is not None
    assert 0 <= chance <= 1
    monkeypatch.setattr(plan, "feasibility", lambda metrics, points: np.full(len(points), np.nan))
    monkeypatch.setattr(models.Metric, "predict", lambda self, points: (np.array([np.inf]), np.array([np.nan])))
    blank = made(constraints=["epoch_seconds <= 4"])
    assert (blank.predicted_mean, blank.predicted_sd, blank.predicted_feasibility) == (None, None, None)


def test_with_known_noise_a_lucky_value_is_not_taken_for_the_best() -> None:
    """One of twelve configurations that are worth the same was lucky."""
    space = {"dropout": SPACE["dropout"]}

    def scores(noise: dict[str, float]) -> tuple[float, float]:
        spec = spec_with(space=space, objectives=[{"metric": "val_top1", **noise}])
        shown = [0.5 + (0.2 if place == 6 else 0.01 * (place % 2)) for place in range(12)]
        records = [
            record_of(place, TrialState.COMPLETED, params={"dropout": 0.07 * place}, metrics={"val_top1": shown[place]})
            for place in range(12)
        ]
        (found,) = BoTorchGenerator().propose(History(spec, records), 1)
        assert found.predicted_mean is not None
        return abs(float(found.params["dropout"]) - 0.42), found.predicted_mean

    (near, high), (_, sober) = scores({}), scores({"noise_sd": 0.3})
    assert near < 0.07
    assert sober < 0.6 < high


# ---------------------------------------------------------------- where nothing can be proposed


def test_a_small_space_is_used_up_without_repeats() -> None:
    spec = spec_with(space={"model": SPACE["model"]})
    records = [record_of(0, TrialState.COMPLETED, params={"model": "a"}, metrics={"val_top1": 0.5})]
    for generator in (AxGenerator(), BoTorchGenerator("ax")):
        found = generator.propose(History(spec, records), 5)
        assert sorted(str(suggestion.params["model"]) for suggestion in found) == ["b", "c"]
        with pytest.raises(GeneratorError, match=r"every configuration|no new configuration"):
            generator.propose(History(spec, records).extended(found), 1)


def test_a_small_space_is_used_up_when_all_that_the_rules_allow_has_been_tried() -> None:
    spec = spec_with(space={"clip.stride": SPACE["clip.stride"]}, rules=["2 divides clip.stride"])
    records = [
        record_of(id, TrialState.COMPLETED, params={"clip.stride": stride}, metrics={"val_top1": 0.1 * stride})
        for id, stride in enumerate((1, 2, 4, 6))
    ]
    (found,) = AxGenerator().propose(History(spec, records[:3]), 2)
    assert found.params == {"clip.stride": 6}
    generator, used_up = AxGenerator(), History(spec, records)
    with pytest.raises(GeneratorError, match="every configuration of this space has been tried"):
        generator.propose(used_up, 1)
    with known_warnings():
        assert generator.study(used_up).fit(used_up) is not None, "Ax's analyses still have a model"


@pytest.mark.parametrize(
    ("step", "error"),
    [("model", np.linalg.LinAlgError("not positive definite")), ("search", InputDataError("NaNs on the input"))],
)
def test_an_error_of_a_library_is_one_of_the_generator(
    monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(plan, step, fails)
    spec = spec_with(space=SPACE)
    with pytest.raises(GeneratorError, match=f"Ax could not propose .{type(error).__name__}: {error}"):
        AxGenerator().propose(History(spec, _completed(spec, 6)), 1)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"constraints": ["epoch_seconds <= 3"], "rules": ["clip.stride <= 4"]},
        {"objectives": [{"metric": "val_top1"}, {"metric": "epoch_seconds"}]},
    ],
    ids=["one objective", "a constraint", "two objectives"],
)
@pytest.mark.usefixtures("short_search")
def test_a_batch_begins_with_the_proposal_and_goes_on_with_new_configurations(sections: dict[str, Any]) -> None:
    spec = spec_with(space=SPACE, **sections)
    history = History(spec, _records(spec, 14))
    found = AxGenerator().batch(history, 6)
    assert [one.params for one in found] == [one.params for one in AxGenerator().batch(history, 6)]
    assert found[0].params == AxGenerator().propose(history, 1)[0].params
    keys = {key_of(one.params) for one in found}
    assert len(keys) == 6
    assert not keys & history.taken
    assert all(spec.allows(one.params) for one in found)
    assert all(one.predicted_mean is not None for one in found)


def test_draws_look_where_the_models_expect_much() -> None:
    spec = spec_with(space=SPACE)
    history = History(spec, _completed(spec, 60))
    drawn = [_score(one.params)["val_top1"] for one in AxGenerator().batch(history, 9)[1:]]
    tried = sorted(one.metrics["val_top1"] for one in history.records if one.metrics)
    assert float(np.median(drawn)) > tried[-10]


def test_a_belief_is_not_left_out_of_a_batch() -> None:
    believed = {**SPACE, "dropout": {**SPACE["dropout"], "prior": {"center": 0.3}}}
    spec = spec_with(space=believed)
    assert len(AxGenerator().batch(History(spec, _completed(spec, 12)), 6)) == 1
