"""The mixed search against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.optimizer.bayes.acquisition import Acquisition, Modelled
from hpo.optimizer.bayes.gp import Hyperparameters, Process
from hpo.optimizer.bayes.search import best_of, every_row, search
from hpo.optimizer.bayes.space import Space

from ...records import spec_with

SPACE = Space(
    spec_with(
        space={
            "model": {"type": "categorical", "choices": ["a", "b", "c", "d"]},
            "model.depth": {"type": "float", "low": 1.0, "high": 3.0, "when": {"model": ["a", "b"]}},
            "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "clip.stride": {"type": "int", "low": 1, "high": 5},
            "batch_size": {"type": "int", "low": 1, "high": 300},
        }
    )
)
STRIDES = {"type": "int", "low": 1, "high": 5}
FINITE = Space(spec_with(space={"model": {"type": "categorical", "choices": ["a", "b"]}, "clip.stride": STRIDES}))


def _acquisition(space: Space, seed: int) -> tuple[Acquisition, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = space.from_unit(rng.random((12, space.dimensions)))
    hyper = Hyperparameters(lengthscales=np.full(space.dimensions, 0.7), outputscale=1.0, noise=0.01, mean=0.0)
    process = Process(space.embed(rows), rng.standard_normal(12), np.zeros(12), space.columns, [hyper])
    model = Modelled(process=process, is_objective=True, threshold=-np.inf)
    return Acquisition(space, [model], rows, rng.standard_normal((1, 1, 16, 12))), rows


@pytest.mark.parametrize("seed", range(4))
def test_no_random_row_is_better_than_the_one_found(seed: int) -> None:
    acquisition, rows = _acquisition(SPACE, seed)
    found = search(SPACE, acquisition, rows[:4], lambda _: True, [seed])
    assert found is not None
    assert np.allclose(SPACE.snap(found[None]), found)
    drawn = SPACE.from_unit(np.random.default_rng(seed + 100).random((20_000, SPACE.dimensions)))
    assert acquisition.values(found[None])[0] >= acquisition.values(drawn).max() - 0.02


def test_known_rows_are_skipped() -> None:
    acquisition, rows = _acquisition(SPACE, 0)
    first = search(SPACE, acquisition, rows[:4], lambda _: True, [0])
    assert first is not None
    second = search(SPACE, acquisition, rows[:4], lambda row: not np.array_equal(row, first), [0])
    assert second is not None
    assert not np.array_equal(first, second)
    assert search(SPACE, acquisition, rows[:4], lambda _: False, [0]) is None


def test_a_finite_space_is_enumerated() -> None:
    acquisition, _ = _acquisition(FINITE, 1)
    rows = every_row(FINITE)
    assert len(np.unique(rows, axis=0)) == 10
    assert acquisition.values(best_of(acquisition, rows)[None])[0] == pytest.approx(acquisition.values(rows).max())
