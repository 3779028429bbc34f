"""Configurations as rows of coordinates, and the distances that the kernel reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.optimizer.bayes.kernels import DISTANCE_FROM_MIDDLE
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.cube import decode
from hpo.trial import Params

from ...records import spec_with
from ...spec.specs import spaces

CONDITIONAL: dict[str, Any] = {
    "model": {"type": "categorical", "choices": ["a", "b", "c"]},
    "model.depth": {"type": "float", "low": 1.0, "high": 3.0, "when": {"model": ["a", "b"]}},
    "model.norm": {"type": "categorical", "choices": ["x", "y", "z"], "when": {"model": ["a"]}},
    "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
}


def _distance(space: Space, left: dict[str, Any], right: dict[str, Any]) -> float:
    points = space.embed(np.stack([space.encode(left), space.encode(right)]))[:, space.columns != DISTANCE_FROM_MIDDLE]
    return float(np.linalg.norm(points[0] - points[1]))


@given(raw=spaces(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_encoding_and_decoding_are_inverse(raw: dict[str, Any], data: st.DataObject) -> None:
    spec = spec_with(space=raw)
    space = Space(spec)
    params = decode(spec, data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=len(raw), max_size=len(raw))))
    back = space.decode(space.encode(params))
    spec.check_params(back)
    assert {key: value for key, value in back.items() if not isinstance(value, float)}.items() <= params.items()
    assert back == {
        key: pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
        for key, value in params.items()
    }


def test_a_range_whose_ends_have_the_same_logarithm() -> None:
    raw = {"type": "float", "low": 1e-5, "high": 1.0000000000000003e-05, "log": True}
    space = Space(spec_with(space={"lr": raw, "dropout": {"type": "float", "low": 0.0, "high": 0.5}}))
    params = {"lr": 1e-5, "dropout": 0.25}
    assert space.decode(space.encode(params)) == pytest.approx(params)


@given(raw=spaces(), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_row_is_a_configuration(raw: dict[str, Any], seed: int) -> None:
    spec = spec_with(space=raw)
    space = Space(spec)
    rng = np.random.default_rng(seed)
    rows = space.from_unit(rng.random((8, space.dimensions)))
    assert np.allclose(space.snap(rows), rows)
    for row, active in zip(rows, space.active(rows), strict=True):
        params = space.decode(row)
        spec.check_params(params)
        assert {axis.key for axis, on in zip(space.axes, active, strict=True) if on} == {
            key for key in params if key in {axis.key for axis in space.axes}
        }
        for place, axis in enumerate(space.axes):
            coordinates = axis.coordinates[:6]
            for coordinate in coordinates:
                changed = row.copy()
                changed[place] = coordinate
                spec.check_params(space.decode(changed))
            assert len({axis.value(float(coordinate)) for coordinate in coordinates}) == min(axis.count, 6)


def test_inactive_parameters_do_not_change_distances() -> None:
    space = Space(spec_with(space=CONDITIONAL))
    row = space.encode({"model": "c", "lr": 0.01})
    hidden = row.copy()
    hidden[1:3] = [0.9, 2.0]
    assert np.array_equal(space.embed(row[None]), space.embed(hidden[None]))


def test_a_parameter_active_in_one_configuration_adds_the_same_distance_for_every_value() -> None:
    space = Space(spec_with(space=CONDITIONAL))
    without = {"model": "c", "lr": 0.01}
    distances = [
        _distance(space, without, {"model": "a", "lr": 0.01, "model.depth": depth, "model.norm": norm})
        for depth in (1.0, 1.7, 3.0)
        for norm in ("x", "y", "z")
    ]
    assert distances == pytest.approx([distances[0]] * 9)
    both = _distance(space, {"model": "b", "lr": 0.01, "model.depth": 1.7}, without)
    assert 1 < both < distances[0]  # one condition less differs


def test_close_values_of_a_conditional_number_are_as_far_as_those_of_any_other() -> None:
    space = Space(spec_with(space=CONDITIONAL))
    low = {"model": "b", "lr": 0.01, "model.depth": 1.0}
    assert _distance(space, low, {**low, "model.depth": 1.02}) == pytest.approx(0.01, rel=1e-3)


def test_the_distance_from_the_middle_counts_active_numbers_and_most_of_all_those_that_span_decades() -> None:
    raw = {
        "model": {"type": "categorical", "choices": ["a", "b"]},
        "lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "model.width": {"type": "ordinal", "choices": [8, 16]},
        "model.layers": {"type": "int", "low": 1, "high": 5},
        "batch_size": {"type": "int", "low": 4, "high": 64, "log": True},
        "model.depth": {"type": "float", "low": 0, "high": 4, "when": {"model": ["a"]}},
    }
    space = Space(spec_with(space=raw))
    middle = {"model": "b", "lr": 1e-3, "model.width": 8, "model.layers": 3, "batch_size": 16}
    configurations: list[dict[str, Any]] = [
        middle,
        {**middle, "lr": 1e-2},
        {**middle, "model.width": 16},
        {**middle, "model.layers": 5},
        {**middle, "batch_size": 4},
        {**middle, "model": "a", "model.depth": 2.0},
        {**middle, "model": "a", "model.depth": 4.0},
        {**middle, "model": "a", "lr": 1e-4, "model.layers": 1, "model.depth": 0.0},
    ]
    points = space.embed(np.stack([space.encode(params) for params in configurations]))
    found = points[:, space.columns == DISTANCE_FROM_MIDDLE].ravel()
    assert found == pytest.approx([0, 1, 0, 0.2, 0.2, 0, 0.2, 1.4])


def test_a_child_of_a_fixed_parent_follows_the_grandparent() -> None:
    raw = {
        "model": {"type": "categorical", "choices": ["a", "b"]},
        "model.kind": {"type": "categorical", "choices": ["only"], "when": {"model": ["a"]}},
        "model.depth": {"type": "float", "low": 0, "high": 1, "when": {"model.kind": ["only"]}},
    }
    space = Space(spec_with(space=raw))
    rows = np.array([[0.0, 0.3], [1.0, 0.3]])
    assert space.active(rows).tolist() == [[True, True], [True, False]]
    assert space.decode(rows[0]) == {"model": "a", "model.kind": "only", "model.depth": 0.3}
    assert space.decode(rows[1]) == {"model": "b"}


def test_the_order_of_choices_and_the_direction_of_a_range_do_not_matter() -> None:
    spec = spec_with(space=CONDITIONAL)
    relabelled = spec_with(space={**CONDITIONAL, "model": {"type": "categorical", "choices": ["c", "a", "b"]}})
    rng = np.random.default_rng(0)
    space, other = Space(spec), Space(relabelled)
    rows = space.from_unit(rng.random((12, 4)))
    points = space.embed(rows)
    renamed = np.stack([other.encode(space.decode(row)) for row in rows])
    reflected = rows.copy()
    reflected[:, [1, 3]] = 1 - reflected[:, [1, 3]]
    for same in (other.embed(renamed), space.embed(reflected)):
        gaps = [np.linalg.norm(p[:, None] - p[None], axis=2) for p in (points, same)]
        assert np.allclose(*gaps)


@pytest.mark.parametrize("given_values", [{}, {"model.alpha": 8}])
def test_rows_that_break_a_rule_get_allowed_values_and_the_others_stay(given_values: Params) -> None:
    raw = {
        "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
        "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "model.alpha": {"type": "ordinal", "choices": [2, 4, 8]},
    }
    spec = spec_with(space=raw, rules=["lr <= weight_decay * 5", "model.alpha <= 4 or lr <= 0.001"])
    space = Space(spec)
    rows = np.random.default_rng(1).random((40, 3))
    rows[:, 2] = 1.0 if given_values else np.floor(rows[:, 2] * 3) / 2
    before = space.allows(rows)
    assert before.tolist() == [spec.allows(space.decode(row)) for row in rows]
    moved = space.with_allowed(rows, given_values)
    assert 0 < before.sum() < 40
    assert space.allows(moved).all()
    assert np.array_equal(moved[before], rows[before])
    assert given_values.items() <= space.decode(moved[0]).items()
    assert len(np.unique(moved, axis=0)) == 40
