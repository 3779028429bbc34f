"""Terms that are added to an acquisition: weights of the improvement, what a trial costs, and the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...arrays import Array
from ...trial import Params
from ..bayes.space import Space

_STEP: Final = 1e-4
BROKEN: Final = -1e6
"""Far below every log improvement, and so near that a line search still works with it."""

Weight = Callable[[Array], tuple[Array, Array]]
"""Maps rows to the logarithms of their weights, and the gradient of those in the coordinates; 0 for categories."""
Term = Callable[[Tensor], Tensor]
"""Maps rows (n, dimensions) to values (n,), with gradients in the coordinates."""


def weight_term(weight: Weight) -> Term:
    """Return the logarithm of a weight: of a belief about the optimum, or of the chance that a trial runs."""
    return lambda rows: _Known.apply(rows, weight)


def cost_term(space: Space, cost: Callable[[Params], float]) -> Term:
    """Return minus the logarithm of the cost; its gradient is taken by differences."""

    def values(rows: Array) -> Array:
        return -np.log([cost(space.decode(row)) for row in rows])

    def with_gradient(rows: Array) -> tuple[Array, Array]:
        gradient = np.zeros(rows.shape)
        for place in np.flatnonzero(space.is_continuous):
            low, high = rows.copy(), rows.copy()
            low[:, place] = np.maximum(low[:, place] - _STEP, 0.0)
            high[:, place] = np.minimum(high[:, place] + _STEP, 1.0)
            gradient[:, place] = (values(high) - values(low)) / (high[:, place] - low[:, place])
        return values(rows), gradient

    return lambda rows: _Known.apply(rows, with_gradient if rows.requires_grad else lambda at: (values(at), at))


def rules_term(space: Space) -> Term:
    """Return 0 where the rules of the study are kept, and `BROKEN` elsewhere, without a slope."""
    return lambda rows: torch.as_tensor(np.where(space.allows(rows.detach().numpy()), 0.0, BROKEN))


class _Known(torch.autograd.Function):
    """A function in numpy with a known gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, function: Callable[[Array], tuple[Array, Array]]) -> Tensor:
        values, gradient = function(rows.detach().numpy())
        ctx.save_for_backward(torch.as_tensor(gradient))
        return torch.as_tensor(values)

    @staticmethod
    def backward(ctx: Any, *above: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return above[0][..., None] * gradient, None
