"""Earlier studies in the models: a related one saves trials, an unrelated one does not cost any."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from hpo.optimizer import Optimizer, startup_trials
from hpo.optimizer.ax_generator import AxGenerator
from hpo.optimizer.bayes.curves import outcomes
from hpo.optimizer.bayes.earlier import StudySpace, space_of, with_earlier
from hpo.optimizer.bayes.models import Data
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.history import History
from hpo.spec import StudySpec
from hpo.trial import EarlierTrial, Params, TrialState

from ...records import record_of, spec_with

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.9},
    "label_smoothing": {"type": "float", "low": 0.0, "high": 0.9},
    "model": {"type": "categorical", "choices": ["a", "b", "c"]},
}
PARAMS: Params = {"lr": 0.01, "dropout": 0.5, "label_smoothing": 0.1, "model": "a"}
Surface = Callable[[Params], float]


def _unit(params: Params) -> np.ndarray[Any, np.dtype[np.float64]]:
    smooth = [float(params[key]) / 0.9 for key in ("dropout", "label_smoothing")]
    return np.array([1 + math.log10(float(params["lr"])) / 4, *smooth])


def surface(params: Params) -> float:
    gap = np.linalg.norm(_unit(params) - [0.3, 0.7, 0.2])
    return -float(gap) - 0.1 * (params["model"] != "b")


def related(params: Params) -> float:
    """Return the same function, shifted a little and in another unit."""
    gap = np.linalg.norm(_unit(params) - [0.36, 0.64, 0.26])
    return 5 - 3 * float(gap) - 0.3 * (params["model"] != "b")


def reflected(params: Params) -> float:
    gap = np.linalg.norm(1 - _unit(params) - [0.3, 0.7, 0.2])
    return -float(gap) - 0.1 * (params["model"] != "c")


def _spec(seed: int = 0) -> StudySpec:
    return spec_with(space=SPACE, optimizer={"seed": seed}, budget={"trials": 60})


def _search(wanted: Surface, seed: int, trials: int, earlier: Sequence[EarlierTrial] = ()) -> list[EarlierTrial]:
    optimizer = Optimizer(_spec(seed), AxGenerator, earlier=earlier)
    found = []
    for number in range(trials):
        (suggestion,) = optimizer.ask()
        optimizer.register(number, suggestion)
        metrics = {"val_top1": wanted(suggestion.params)}
        optimizer.tell(number, metrics)
        found.append(EarlierTrial(study="old", params=suggestion.params, metrics=metrics))
    return found


def _sobol(wanted: Surface, count: int) -> list[EarlierTrial]:
    suggestions = Optimizer(_spec(9), AxGenerator).quick(count)
    return [EarlierTrial(study="old", params=s.params, metrics={"val_top1": wanted(s.params)}) for s in suggestions]


def _gaps(earlier: Sequence[EarlierTrial], trials: int) -> list[float]:
    """Return the distance of the best value to the optimum after each trial, averaged over seeds."""
    runs = [[-trial.metrics["val_top1"] for trial in _search(surface, seed, trials, earlier)] for seed in range(2)]
    return list(np.minimum.accumulate(runs, axis=1).mean(axis=0))


@pytest.mark.slow
def test_a_related_study_saves_trials_and_an_unrelated_one_costs_none() -> None:
    none = _gaps([], 10)
    helped = _gaps(_sobol(related, 20), 8)
    assert helped[3] < 0.5 * none[3]
    assert helped[-1] < none[7]
    for misleading in (reflected, lambda params: math.sin(1e5 * float(_unit(params).sum()))):
        harmed = _gaps(_sobol(misleading, 40), 10)
        assert harmed[-1] < max(1.3 * none[-1], none[7])


def test_without_earlier_trials_the_space_is_the_plain_one() -> None:
    assert type(space_of(History(_spec(), []))) is Space


def test_each_study_is_its_own_corner_of_the_simplex() -> None:
    spec = _spec()
    plain, space = Space(spec), StudySpace(spec, ["x", "y"])
    rows = plain.from_unit(np.random.default_rng(0).random((5, 4)))
    points = [space.embed(rows), space.embed_earlier(rows, "x"), space.embed_earlier(rows, "y")]
    assert space.columns.max() == plain.columns.max() + 1
    for place, one in enumerate(points):
        np.testing.assert_array_equal(one[:, : plain.columns.size], plain.embed(rows))
        for other in points[:place]:
            np.testing.assert_allclose(((one - other) ** 2).sum(axis=1), 1.0)


def _joined(earlier: Sequence[EarlierTrial], values: Surface = surface, count: int = 12, **sections: Any) -> Data:
    spec = spec_with(space=SPACE, **sections)
    records = [
        record_of(
            id, TrialState.COMPLETED, params=s.params, metrics={"val_top1": values(s.params), "peak_memory_gib": 4}
        )
        for id, s in enumerate(Optimizer(_spec(1), AxGenerator).quick(count))
    ]
    history = History(spec, records, earlier=earlier)
    space, known = space_of(history), outcomes(history)
    points = space.embed(np.stack([space.encode(outcome.params) for outcome in known]))
    return with_earlier(history, space, Data(points=points, columns=space.columns, outcomes=known))


def test_another_unit_is_put_on_the_scale_of_this_study() -> None:
    data = _joined(_sobol(lambda params: 40 + 7 * surface(params), 40))
    assert len(data.points) == len(data.outcomes) == 52
    told = np.array([outcome.values["val_top1"] for outcome in data.outcomes[12:]])
    truth = np.array([surface(outcome.params) for outcome in data.outcomes[12:]])
    slope = np.polyfit(truth, told, 1)[0]
    assert np.corrcoef(truth, told)[0, 1] > 0.999
    assert slope == pytest.approx(1, rel=0.6)
    assert abs(float(np.mean(told - truth))) < 0.15
    assert {outcome.sds["val_top1"] for outcome in data.outcomes[12:]} == {0.0}


def test_outcomes_that_the_configuration_does_not_explain_are_noise() -> None:
    data = _joined(_sobol(lambda params: math.sin(1e5 * float(_unit(params).sum())), 40))
    (sd,) = {outcome.sds["val_top1"] for outcome in data.outcomes[12:]}
    assert sd > 0.5 * np.std([outcome.values["val_top1"] for outcome in data.outcomes[12:]])


def test_one_outcome_far_below_the_rest_does_not_set_the_scale() -> None:
    plain = _sobol(surface, 40)
    broken = [*plain[1:], EarlierTrial(study="old", params=plain[0].params, metrics={"val_top1": -1e6})]
    told = [[outcome.values["val_top1"] for outcome in _joined(earlier).outcomes[12:]] for earlier in (plain, broken)]
    np.testing.assert_allclose(told[1][:39], told[0][1:], atol=0.2)


def test_equal_outcomes_leave_the_unit_unchanged() -> None:
    data = _joined(_sobol(surface, 20), values=lambda _: 0.25)
    told = [outcome.values["val_top1"] for outcome in data.outcomes[12:]]
    truth = [surface(outcome.params) for outcome in data.outcomes[12:]]
    np.testing.assert_allclose(np.diff(told), np.diff(truth))


def test_a_metric_that_the_earlier_study_lacks_is_uninformative() -> None:
    data = _joined(_sobol(surface, 20), constraints=["peak_memory_gib <= 8"])
    assert all(outcome.sds["peak_memory_gib"] > 0 for outcome in data.outcomes[12:])
    assert all(outcome.values["peak_memory_gib"] == 4 for outcome in data.outcomes[12:])


def test_the_start_up_is_the_best_of_each_earlier_study_and_short() -> None:
    other = EarlierTrial(study="other", params={**PARAMS, "lr": 0.5}, metrics={"val_top1": 9.0})
    earlier = [*_sobol(surface, 8), other]
    optimizer = Optimizer(_spec(), AxGenerator, earlier=earlier)
    found = optimizer.ask(2)
    best = max(earlier[:8], key=lambda trial: trial.metrics["val_top1"])
    assert [(s.params, s.generator) for s in found] == [
        (best.params, "best of old"),
        (other.params, "best of other"),
    ]
    for number, suggestion in enumerate(found):
        optimizer.register(number, suggestion)
        optimizer.tell(number, {"val_top1": surface(suggestion.params)})
    assert optimizer.uses_model
    assert optimizer.ask()[0].params not in [trial.params for trial in earlier]


def test_earlier_trials_replace_all_but_two_of_the_start_up() -> None:
    assert [startup_trials(_spec(), earlier=count) for count in (0, 1, 2, 50)] == [5, 4, 3, 2]
    fixed = spec_with(optimizer={"startup_trials": 7})
    assert startup_trials(fixed, earlier=50) == 7


def test_suggestions_are_a_function_of_the_records_and_the_earlier_trials() -> None:
    earlier = _sobol(related, 20)
    optimizer, told = Optimizer(_spec(), AxGenerator, earlier=earlier), _search(surface, 0, 5, earlier)
    optimizer.replay(
        record_of(id, TrialState.COMPLETED, params=trial.params, metrics=trial.metrics)
        for id, trial in enumerate(told[:4])
    )
    assert optimizer.ask()[0].params == told[4].params


def test_several_objectives_and_a_constraint_learn_from_earlier_studies_too() -> None:
    sections: dict[str, Any] = {
        "objectives": [{"metric": "val_top1"}, {"metric": "epoch_seconds"}],
        "constraints": ["peak_memory_gib <= 6"],
    }
    spec = spec_with(space=SPACE, **sections)

    def measured(params: Params) -> dict[str, float]:
        dropout = float(params["dropout"])
        return {"val_top1": surface(params), "epoch_seconds": 30 + 10 * dropout, "peak_memory_gib": 4 + 4 * dropout}

    def told(study: str, count: int) -> list[EarlierTrial]:
        found = _sobol(surface, count)
        return [EarlierTrial(study=study, params=trial.params, metrics=measured(trial.params)) for trial in found]

    optimizer = Optimizer(spec, AxGenerator, earlier=[*told("x", 20), *told("y", 10)])
    for number in range(4):
        (suggestion,) = optimizer.ask()
        optimizer.register(number, suggestion)
        optimizer.tell(number, measured(suggestion.params))
    assert suggestion.generator == "ax"
    assert suggestion.predicted_feasibility is not None
    assert measured(suggestion.params)["peak_memory_gib"] < 7
