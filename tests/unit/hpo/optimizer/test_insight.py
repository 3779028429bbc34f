"""What the models of a study show: importances, slices, contours and cross-validation of a closed form."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hpo.arrays import Array
from hpo.optimizer import insight as module
from hpo.optimizer.bayes.sensitivity import shares
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.generator import GeneratorError
from hpo.optimizer.importance import LEAST_EXPLAINED, Importance, Trend, explained_sentence, trend_of
from hpo.optimizer.insight import CrossValidation, Insight, TooFewOutcomesError, values_along
from hpo.optimizer.sobol import sobol_points
from hpo.spec.values import value_at
from hpo.trial import Params, TrialRecord, TrialState

from ..records import record_of, spec_with

SPEC = spec_with(
    space={
        "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        "clip.stride": {"type": "int", "low": 1, "high": 4},
        "model": {"type": "categorical", "choices": ["r2plus1d_18", "slowfast_r18"]},
        "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r18"]}},
    },
    # The models need only the records, whatever proposed the configurations.
    optimizer={"name": "tpe"},
)


def _value(params: Params) -> float:
    """A value that lr changes by 0.42, dropout by 0.3 and the others not; the highest is at lr 0.01 and dropout 0."""
    away = abs(math.log10(float(params["lr"])) + 2)
    return 0.8 - 0.15 * math.pow(away, 1.5) - 0.38 * float(params["dropout"])


def _records(count: int) -> list[TrialRecord]:
    points = sobol_points(len(SPEC.space), 3, 5)[:count]
    found = []
    for id, point in enumerate(points):
        values = {key: value_at(parameter, u) for (key, parameter), u in zip(SPEC.space.items(), point, strict=True)}
        params = SPEC.active(values)
        metrics = {"val_top1": _value(params)}
        found.append(
            record_of(id, TrialState.COMPLETED, params=params, metrics=metrics, curve={9: metrics}, epochs_done=9)
        )
    return found


@pytest.fixture(scope="module")
def insight() -> Insight:
    return Insight(SPEC, _records(24))


@pytest.fixture(scope="module")
def importances(insight: Insight) -> list[Importance]:
    return insight.importances("val_top1")


def test_importances_are_shares_and_find_what_matters(importances: list[Importance]) -> None:
    assert {row.parameter for row in importances} == set(SPEC.space)
    assert sum(row.share for row in importances) == pytest.approx(1)
    assert [row.parameter for row in importances[:2]] == ["lr", "dropout"]
    shares = [row.share for row in importances]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5
    assert sum(shares[2:]) < 0.15, "the others change nothing"


def test_intervals_hold_the_shares_of_the_closed_form(importances: list[Importance]) -> None:
    space = Space(SPEC)

    def exact(points: Array) -> Array:
        # `lr` is a coordinate from 1e-4 to 0.1; `dropout` is one from 0 to 0.8.
        lr, dropout = (points[:, [axis.key for axis in space.axes].index(name)] for name in ("lr", "dropout"))
        return (0.8 - 0.15 * np.abs(3 * lr - 2) ** 1.5 - 0.38 * 0.8 * dropout)[None]

    (true,) = shares(space, exact, exponent=12, seed=1)
    by_name = {axis.key: value for axis, value in zip(space.axes, true, strict=True)}
    for row in importances:
        assert row.low is not None
        assert row.high is not None
        assert row.low - 0.05 <= by_name[row.parameter] <= row.high + 0.01, row
        assert row.high - row.low < 0.4


def test_directions_are_those_of_the_closed_form(importances: list[Importance]) -> None:
    lr, dropout = importances[:2]
    assert lr.trend is Trend.HIGHEST
    assert 0.003 < float(lr.at or 0) < 0.03
    assert (dropout.trend, dropout.at) == (Trend.FALLS, None)
    assert dropout.direction("val_top1") == "val_top1 falls with it"
    (model,) = [row for row in importances if row.parameter == "model"]
    assert (model.trend, model.direction("val_top1")) == (None, ""), "categories have no order"


def test_a_slice_follows_the_closed_form_around_the_configuration_that_was_given(insight: Insight) -> None:
    around: Params = {"lr": 0.01, "dropout": 0.2, "clip.stride": 2, "model": "r2plus1d_18"}
    found = insight.slice("val_top1", "dropout", around)
    assert (found.values[0], found.values[-1]) == (0.0, 0.8)
    for value, mean in list(zip(found.values, found.means.tolist(), strict=True))[::8]:
        assert mean == pytest.approx(_value({**around, "dropout": value}), abs=0.06)
    assert (found.sds > 0).all()
    other = insight.slice("val_top1", "dropout", {**around, "lr": 0.0002})
    assert (other.means < found.means - 0.1).all(), "the learning rate stays as given"


def test_a_contour_has_the_first_parameter_in_its_columns(insight: Insight) -> None:
    around: Params = {"lr": 0.01, "dropout": 0.2, "clip.stride": 2, "model": "r2plus1d_18"}
    found = insight.contour("val_top1", "lr", "clip.stride", around)
    assert list(found.right) == [1, 2, 3, 4]
    assert found.means.shape == (4, len(found.left))
    assert found.means[1].tolist() == pytest.approx([_value({**around, "lr": value}) for value in found.left], abs=0.12)


def test_cross_validation_is_of_the_outcomes_themselves(insight: Insight) -> None:
    found = insight.cross_validation()
    assert set(found) == {"val_top1"}
    expected = sorted(_value(record.params) for record in _records(24))
    assert sorted(found["val_top1"].observed.tolist()) == pytest.approx(expected)
    assert found["val_top1"].explained > 0.7
    assert (found["val_top1"].predicted_sds > 0).all()


def test_the_share_that_is_explained_is_the_closed_form(insight: Insight) -> None:
    def explained(observed: list[float], predicted: list[float]) -> float:
        sds = np.ones(len(observed))
        return CrossValidation(observed=np.array(observed), predicted=np.array(predicted), predicted_sds=sds).explained

    assert explained([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1
    assert explained([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == 0
    assert explained([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == -3
    assert explained([2.0, 2.0], [1.0, 3.0]) == 0, "nothing differs, so nothing is explained"
    assert explained([1e308, 2e307, 3e306], [1e308, 2e307, 3e306]) == 1, "squares of such losses overflow"


@pytest.mark.parametrize("part", ["shares_of", "Plan"])
def test_what_ax_cannot_compute_is_said_in_a_sentence(
    insight: Insight, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("singular")

    monkeypatch.setattr(module, part, refuse)
    insight = copy.copy(insight) if part == "shares_of" else Insight(SPEC, _records(5))
    with pytest.raises(GeneratorError, match="RuntimeError: singular"):
        insight.importances("val_top1") if part == "shares_of" else insight.cross_validation()


def _with(count: int, values: Sequence[float], name: str = "val_top1") -> list[TrialRecord]:
    """Return trials with these outcomes."""
    return [
        record_of(
            one.id, TrialState.COMPLETED, params=one.params, metrics={name: v}, curve={9: {name: v}}, epochs_done=9
        )
        for one, v in zip(_records(count), values, strict=True)
    ]


def test_nothing_matters_for_a_metric_that_is_the_same_in_all_trials() -> None:
    same = Insight(SPEC, _with(12, [0.5] * 12))
    rows = same.importances("val_top1")
    assert {row.parameter for row in rows} == set(SPEC.space)
    assert {(row.share, row.interval, row.trend) for row in rows} == {(0.0, "", None)}
    assert same.explained("val_top1") is None
    assert same.cross_validation()["val_top1"].explained == 0


def test_a_model_explains_what_parameters_change_and_nothing_of_noise(insight: Insight) -> None:
    assert 0.7 < (insight.explained("val_top1") or 0) <= 1
    for seed in range(3):
        noise = np.random.default_rng(seed).random(30).tolist()
        assert (Insight(SPEC, _with(30, noise)).explained("val_top1") or 0) < LEAST_EXPLAINED


def test_how_much_is_explained_is_a_sentence() -> None:
    assert explained_sentence("val_top1", None) == "val_top1 is the same in all trials."
    for value in (-3.0, 0.0, 0.09):
        assert explained_sentence("val_top1", value) == "The model explains next to nothing of val_top1 yet."
    assert (
        explained_sentence("val_top1", 0.1)
        == "The model explains 10% of the variance of val_top1 in trials that it has not seen."
    )


@pytest.mark.parametrize("count", [0, 3, 4])
def test_with_too_few_outcomes_the_reason_is_a_sentence(count: int) -> None:
    with pytest.raises(TooFewOutcomesError, match=rf"^{count} trials have an outcome; a model needs at least 5$"):
        Insight(SPEC, _records(count))


def test_many_trials_are_thinned_and_the_best_ones_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OUTCOMES", 10)
    records = _records(32)
    found = Insight(SPEC, records)
    assert (found.outcomes, found.used) == (32, 10)
    kept = {record.number for record in found._history.records}
    best = sorted(records, key=lambda record: -_value(record.params))[:3]
    assert kept >= {record.number for record in best}
    assert len(kept & {record.number for record in records[-8:]}) > 0, "later trials are among them"


@pytest.mark.parametrize(
    ("means", "trend", "at"),
    [
        ([0.1, 0.2, 0.3], Trend.RISES, None),
        ([0.3, 0.2, 0.1], Trend.FALLS, None),
        ([0.1, 0.3, 0.2], Trend.HIGHEST, 2),
        ([0.3, 0.1, 0.2], Trend.LOWEST, 2),
        ([0.1, 0.31, 0.3], Trend.RISES, None),
        ([0.2, 0.2, 0.2], None, None),
        ([0.2], None, None),
    ],
)
def test_trends(means: list[float], trend: Trend | None, at: int | None) -> None:
    assert trend_of([1, 2, 3][: len(means)], means) == (trend, at)


def test_values_along_a_range_end_at_its_ends_and_choices_are_never_left_out() -> None:
    lr = values_along(SPEC.space["lr"], 5)
    assert lr == pytest.approx([1e-4, 10**-3.25, 10**-2.5, 10**-1.75, 0.1])
    assert values_along(SPEC.space["clip.stride"], 9) == [1, 2, 3, 4]
    assert values_along(SPEC.space["clip.stride"], 3) == [1, 3, 4]
    assert values_along(SPEC.space["model"], 1) == ["r2plus1d_18", "slowfast_r18"]
