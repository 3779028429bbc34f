"""Configurations without a model: valid, different, spread out, and the same for whoever asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from hpo.optimizer import create_optimizer
from hpo.optimizer.cube import decode, grid_index, grid_size, grid_value, key_of, size
from hpo.optimizer.sobol import random_points, sobol_points
from hpo.spec import FloatParameter, IntParameter
from hpo.spec.configurations import count_configurations
from hpo.trial import FailureKind

from ..records import spec_with
from ..spec.specs import spaces

UNIT = st.floats(0, 1, exclude_max=True)


@given(raw=spaces(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_every_point_of_the_cube_is_a_configuration(raw: dict[str, Any], data: st.DataObject) -> None:
    spec = spec_with(space=raw)
    point = data.draw(st.lists(UNIT, min_size=len(raw), max_size=len(raw)))
    spec.check_params(decode(spec, point))


@given(raw=spaces(), name=st.sampled_from(["sobol", "random"]), seed=st.integers(0, 1000), n=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_proposals_are_valid_and_different(raw: dict[str, Any], name: str, seed: int, n: int) -> None:
    spec = spec_with(space=raw, optimizer={"name": name, "seed": seed})
    optimizer = create_optimizer(spec)
    first = optimizer.ask(n)
    for number, suggestion in enumerate(first):
        optimizer.register(number, suggestion)
    second = optimizer.ask(n)
    keys = [key_of(suggestion.params) for suggestion in first + second]
    assert len(set(keys)) == len(keys)
    count = count_configurations(spec)
    assert len(keys) == (2 * n if count is None else min(2 * n, count))
    for suggestion in first + second:
        spec.check_params(suggestion.params)


@pytest.mark.parametrize("name", ["sobol", "random", "tpe", "gp", "nsga2", "ax"])
def test_a_finite_space_is_used_up_and_nothing_is_repeated(name: str) -> None:
    space = {
        "model": {"type": "categorical", "choices": ["a", "b"]},
        "model.gate": {"type": "categorical", "choices": [True, False], "when": {"model": ["a"]}},
        "clip.stride": {"type": "int", "low": 1, "high": 3},
    }
    optimizer = create_optimizer(spec_with(space=space, optimizer={"name": name}))
    keys = []
    for number in range(9):  # all of them: 3 strides with b, 3 x 2 with a
        assert not optimizer.is_used_up
        (suggestion,) = optimizer.ask()
        keys.append(key_of(suggestion.params))
        optimizer.register(number, suggestion)
        if number == 4:
            optimizer.fail(number, FailureKind.ERROR)
        else:
            optimizer.tell(number, {"val_top1": 0.1 * number})
    assert len(set(keys)) == 9
    assert optimizer.is_used_up
    assert (optimizer.ask(3), optimizer.quick(3)) == ([], [])


def test_configurations_that_the_sequence_does_not_reach_come_last() -> None:
    # Of 2 ** 17 points of the cube about one has `rare`, and a sequence is followed for 2 ** 10.
    space = {
        "model": {"type": "categorical", "choices": [f"m{place}" for place in range(16)]},
        "model.a": {"type": "categorical", "choices": [f"a{place}" for place in range(16)], "when": {"model": ["m0"]}},
        "model.b": {
            "type": "categorical",
            "choices": [f"b{place}" for place in range(16)],
            "when": {"model.a": ["a0"]},
        },
        "model.c": {"type": "categorical", "choices": ["rare", "x"], "when": {"model.b": ["b0"]}},
    }
    spec = spec_with(space=space, optimizer={"name": "sobol"})
    found = create_optimizer(spec).ask(100)
    assert len({key_of(suggestion.params) for suggestion in found}) == 15 + 15 + 15 + 2 == len(found)


def test_the_sequence_continues_where_it_stopped_and_skips_tried_configurations() -> None:
    spec = spec_with(optimizer={"name": "sobol", "seed": 3})
    whole = [suggestion.params for suggestion in create_optimizer(spec).ask(20)]
    optimizer = create_optimizer(spec)
    for number in range(20):
        (suggestion,) = optimizer.ask()
        assert suggestion.params == whole[number]
        optimizer.register(number, suggestion)


def test_the_fallback_continues_the_same_sequence() -> None:
    optimizer = create_optimizer(spec_with(optimizer={"name": "ax", "startup_trials": 8}))
    whole = [suggestion.params for suggestion in optimizer.ask(5)]
    for number, params in enumerate(whole[:4]):
        optimizer.register(number, params)
    (next_one,) = optimizer.quick()
    assert next_one.params == whole[4]
    assert next_one.generator == "sobol (instead of ax)"


def test_another_seed_is_another_sequence() -> None:
    points = [create_optimizer(spec_with(optimizer={"name": "sobol", "seed": seed})).ask(3) for seed in (0, 1)]
    assert points[0] != points[1]


def test_sobol_points_fill_the_cube_more_evenly_than_random_ones() -> None:
    discrepancies = [qmc.discrepancy(points(4, 0, 6)) for points in (sobol_points, random_points)]
    assert discrepancies[0] < discrepancies[1] / 3


@pytest.mark.parametrize("points", [sobol_points, random_points])
def test_more_points_begin_with_the_fewer(points: Any) -> None:
    assert np.array_equal(points(3, 5, 3), points(3, 5, 6)[:8])


def test_log_parameters_are_uniform_in_the_logarithm() -> None:
    spec = spec_with(optimizer={"name": "sobol"})
    lrs = np.log10([float(suggestion.params["lr"]) for suggestion in create_optimizer(spec).ask(256)])
    counts, _ = np.histogram(lrs, bins=8, range=(-4, np.log10(0.3)))
    assert counts.min() >= 28


def test_log_integers_reach_both_ends() -> None:
    space = {"batch_size": {"type": "int", "low": 1, "high": 64, "log": True}}
    sizes = {
        s.params["batch_size"] for s in create_optimizer(spec_with(space=space, optimizer={"name": "sobol"})).ask(60)
    }
    assert {1, 2, 64} <= sizes


@given(low=st.integers(-50, 50), step=st.integers(1, 7), count=st.integers(1, 30), scale=st.sampled_from([1, 10, 1000]))
def test_grids_are_exact(low: int, step: int, count: int, scale: int) -> None:
    parameter = FloatParameter(type="float", low=low / scale, high=(low + step * count) / scale, step=step / scale)
    assert grid_size(parameter) == count + 1
    for index in range(count + 1):
        value = grid_value(parameter, index)
        assert value == (low + step * index) / scale
        assert parameter.contains(value)
        assert grid_index(parameter, value) == index


def test_integer_grids() -> None:
    parameter = IntParameter(type="int", low=3, high=11, step=4)
    assert [grid_value(parameter, index) for index in range(grid_size(parameter))] == [3, 7, 11]


def test_the_size_of_a_space_counts_active_parameters_only() -> None:
    space: dict[str, Any] = {
        "model": {"type": "categorical", "choices": ["a", "b"]},
        "model.gate": {"type": "categorical", "choices": [True, False], "when": {"model": ["a"]}},
        "clip.stride": {"type": "int", "low": 1, "high": 7, "step": 3},
    }
    assert size(spec_with(space=space), limit=100) == 9
    assert size(spec_with(space=space), limit=11) is None
    assert size(spec_with(space={**space, "lr": {"type": "float", "low": 0.1, "high": 1}}), limit=10**9) is None
    log = {"batch_size": {"type": "int", "low": 1, "high": 9, "log": True}}
    assert size(spec_with(space=log), limit=100) == 9
