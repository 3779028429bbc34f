"""Maximising from several starts in a box, against SciPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from hpo.optimizer.bayes.ascent import ascend


@given(seed=st.integers(0, 10_000), d=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_maximum_of_a_concave_function_in_the_box_is_found(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d))
    matrix, centre = root @ root.T + 0.3 * np.eye(d), rng.uniform(-0.5, 1.5, d)

    def function(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gap = rows - centre
        return -0.5 * np.einsum("ij,jk,ik->i", gap, matrix, gap), -gap @ matrix

    starts = rng.random((4, d))
    rows, values = ascend(function, starts, np.ones((4, d), dtype=bool), evaluations=200)
    oracle = minimize(lambda x: -function(x[None])[0][0], np.full(d, 0.5), bounds=[(0, 1)] * d, options={"ftol": 1e-14})
    assert ((rows >= 0) & (rows <= 1)).all()
    assert np.allclose(values, -oracle.fun, atol=2e-2)
    assert np.allclose(values, function(rows)[0])


def test_only_free_coordinates_move_and_no_value_gets_worse() -> None:
    def function(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wave = np.sin(9 * rows).sum(axis=1)
        return wave, 9 * np.cos(9 * rows)

    starts = np.random.default_rng(0).random((6, 3))
    free = np.array([[True, False, True]] * 5 + [[False] * 3])
    rows, values = ascend(function, starts, free)
    assert np.array_equal(rows[~free], starts[~free])
    assert (values >= function(starts)[0]).all()
    assert (values[:5] > function(starts)[0][:5]).all()


def test_a_start_without_a_value_stays() -> None:
    def function(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.where(rows[:, 0] < 0.5, -np.inf, rows[:, 0]), np.ones_like(rows)

    rows, values = ascend(function, np.array([[0.2], [0.6]]), np.ones((2, 1), dtype=bool))
    assert rows.tolist() == [[0.2], [1.0]]
    assert values.tolist() == [-np.inf, 1.0]
