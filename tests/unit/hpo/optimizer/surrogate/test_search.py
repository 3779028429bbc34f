"""The search, on acquisitions whose maximum is known."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hpo.optimizer.bayes.prior import Belief
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.surrogate.acquisition import Adjusted
from hpo.optimizer.surrogate.search import best_of, deterministic, search
from hpo.optimizer.surrogate.terms import cost_term, rules_term, weight_term

from ...records import spec_with
from . import stock

RAW: dict[str, Any] = {
    "model": {"type": "categorical", "choices": ["a", "b", "c"]},
    "model.depth": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": ["b"]}},
    "lr": {"type": "float", "low": 0.1, "high": 1.0},
    "clip.stride": {"type": "int", "low": 1, "high": 40},
    "clip.frames": {"type": "ordinal", "choices": [4, 8, 16]},
}
SPACE = Space(spec_with(space=RAW))
PEAK = np.array([1.0, 0.62, 0.31, 12 / 39, 0.5])


class Bowl(stock.AcquisitionFunction):
    """Highest, with 0, at `PEAK`."""

    def __init__(self) -> None:
        super().__init__(model=stock.GenericDeterministicModel(torch.sin))

    def forward(self, X: Tensor) -> Tensor:
        """Return the value at rows (n, 1, dimensions)."""
        return -(X.squeeze(-2) - torch.as_tensor(PEAK)).square().sum(dim=-1)


def _found(space: Space = SPACE, fixed: dict[int, float] | None = None, taken: tuple[float, ...] = ()) -> np.ndarray:
    with deterministic(3):
        row = search(
            space,
            Bowl(),
            np.full((1, 5), [0.0, 0.5, 0.5, 0.0, 0.0]),
            lambda row: not (taken and np.allclose(row, taken)),
            fixed=fixed or {},
            seed=1,
        )
    assert row is not None
    return row


def test_the_maximum_of_a_mixed_space_is_found() -> None:
    np.testing.assert_allclose(_found(), PEAK, atol=2e-3)


def test_given_coordinates_stay() -> None:
    expected = PEAK.copy()
    expected[[0, 2]] = 2.0, 0.9
    np.testing.assert_allclose(_found(fixed={0: 2.0, 2: 0.9}), expected, atol=2e-3)


def test_a_known_row_is_not_found_again() -> None:
    first = _found()
    again = _found(taken=tuple(first))
    assert not np.allclose(again, first)
    assert ((again - PEAK) ** 2).sum() < 0.05


def test_without_a_new_row_there_is_none() -> None:
    with deterministic(3):
        assert search(SPACE, Bowl(), PEAK[None], lambda row: False, fixed={}, seed=1) is None


def test_the_best_of_given_rows() -> None:
    rows = np.array([[0.0, 0.5, 0.5, 0.0, 0.0], PEAK, [1.0, 0.5, 0.5, 0.0, 0.0]])
    np.testing.assert_array_equal(best_of(Bowl(), rows), PEAK)


def test_random_numbers_are_those_of_the_seed_and_the_state_outside_is_left_alone() -> None:
    before, torch_before = random.getstate(), torch.get_rng_state()
    with deterministic(5):
        first = (torch.rand(3).tolist(), random.random())  # noqa: S311 - no secret
        assert torch.get_num_threads() == 1
    with deterministic(5):
        assert (torch.rand(3).tolist(), random.random()) == first  # noqa: S311 - no secret
    assert random.getstate() == before
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_a_broken_rule_is_far_below_everything() -> None:
    space = Space(spec_with(space=RAW, rules=["clip.stride <= 10"]))
    assert rules_term(space)(torch.as_tensor(PEAK[None])).item() < -1e5
    found = Adjusted(Bowl(), rules_term(space))
    with deterministic(3):
        row = search(space, found, PEAK[None], lambda row: bool(space.allows(row[None])[0]), fixed={}, seed=1)
    assert row is not None
    assert space.decode(row)["clip.stride"] == 10


@pytest.mark.parametrize("kind", ["belief", "cost"])
def test_terms_have_the_slope_of_differences(kind: str) -> None:
    prior = {"center": 0.7, "confidence": "medium"}
    space = Space(spec_with(space={**RAW, "lr": {**RAW["lr"], "prior": prior}}))
    if kind == "belief":
        term = weight_term(Belief(space=space, power=1.5))
    else:
        term = cost_term(space, lambda params: 1 + 3 * float(params["lr"]) ** 2)
    rows, step = torch.as_tensor(np.array([PEAK, PEAK + 0.1])), 1e-5
    moved = torch.zeros(5, dtype=torch.double)
    moved[2] = step
    expected = (term(rows + moved) - term(rows - moved)) / (2 * step)
    asked = rows.clone().requires_grad_()
    term(asked).sum().backward()
    assert asked.grad is not None
    torch.testing.assert_close(asked.grad[:, 2], expected, atol=1e-3, rtol=1e-3)
    assert expected.abs().min() > 0.1


def test_a_cost_is_the_negative_logarithm() -> None:
    term = cost_term(SPACE, lambda params: 20.0)
    assert term(torch.as_tensor(PEAK[None])).item() == pytest.approx(-np.log(20))
