"""Rows to compare: all of a finite space, and perturbations and distinct rows to start from in others."""

from __future__ import annotations

import itertools

import numpy as np

from hpo.optimizer.bayes.space import Space
from hpo.optimizer.surrogate.candidates import around, best_new, distinct, every_row
from hpo.trial import Params

from ...records import spec_with

FINITE = Space(
    spec_with(
        space={
            "model": {"type": "categorical", "choices": ["a", "b"]},
            "model.alpha": {"type": "ordinal", "choices": [2, 4, 8], "when": {"model": ["b"]}},
            "clip.stride": {"type": "int", "low": 1, "high": 5},
        },
        rules=["clip.stride != 3"],
    )
)
MIXED = Space(
    spec_with(
        space={
            "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
            "model": {"type": "categorical", "choices": ["a", "b", "c"]},
            "clip.stride": {"type": "int", "low": 1, "high": 5},
        }
    )
)


def test_a_finite_space_has_one_row_for_every_configuration_that_keeps_the_rules() -> None:
    found = [FINITE.decode(row) for row in every_row(FINITE)]
    models: list[Params] = [{"model": "a"}, *({"model": "b", "model.alpha": alpha} for alpha in (2, 4, 8))]
    wanted = [{**model, "clip.stride": stride} for model, stride in itertools.product(models, (1, 2, 4, 5))]
    assert len(found) == len(wanted) == 16
    assert all(params in wanted for params in found)
    assert len({frozenset(params.items()) for params in found}) == 16


def test_perturbations_are_rows_near_the_centres_of_which_a_part_changes() -> None:
    centres = MIXED.from_unit(np.random.default_rng(0).random((2, 3)))
    rows = around(MIXED, centres, np.random.default_rng(1))
    np.testing.assert_allclose(MIXED.snap(rows), rows)
    changed = rows != centres[np.arange(len(rows)) % 2]
    assert changed[:, 0].any()
    assert (~changed).any(axis=0).all()
    assert np.median(np.abs(rows - centres[np.arange(len(rows)) % 2])[:, 0]) < 0.1
    assert set(rows[:, 1]) == {0.0, 1.0, 2.0}


def test_distinct_rows_are_the_best_that_lie_apart() -> None:
    rows = np.array([[0.5, 0.5], [0.51, 0.5], [0.9, 0.5], [0.1, 0.1], [0.9, 0.9]])
    values = np.array([3.0, 4.0, 1.0, 2.0, 0.0])
    np.testing.assert_array_equal(distinct(rows, values, 3), rows[[1, 3, 2]])


def test_the_best_new_row_is_the_first_of_equals() -> None:
    rows, values = np.array([[0.1], [0.2], [0.3]]), np.array([1.0, 2.0, 2.0])
    assert best_new(rows, values, lambda row: True) == 0.2
    assert best_new(rows, values, lambda row: row[0] != 0.2) == 0.3
    assert best_new(rows, values, lambda row: False) is None
