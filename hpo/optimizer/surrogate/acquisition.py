"""The acquisition: noisy expected (hypervolume) improvement under constraints, with pending trials, in logarithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import WeightedMCMultiOutputObjective
from botorch.acquisition.objective import GenericMCObjective
from botorch.models.gpytorch import ModelListGPyTorchModel
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from ...arrays import Array
from ..bayes.models import Metric
from .ensemble import EnsembleGP
from .terms import Term

_SAMPLES = 128
_FRONT_SAMPLES = 32
"""Samples of the function for each member of the ensembles, with one objective and with several."""
_REFERENCE_MARGIN = 0.1
"""Distance of the reference point below the worst values of the front, as a share of the front's range."""

# BoTorch would compile a C++ extension at the first use; a service must not, and results would differ by machine.
logei._load_attempted = True


def acquisition(
    metrics: Sequence[Metric], models: Sequence[EnsembleGP], base: Array, pending: Array, seed: int
) -> AcquisitionFunction:
    """Return the acquisition of one more trial.

    `models` are those of the `metrics`, the objectives before the constraints. `base` are the rows (n, dimensions) of
    the trials that may be the best, and `pending` those of the trials without an outcome.
    """
    count = sum(metric.modelled.is_objective for metric in metrics)
    thresholds = [metric.modelled.threshold for metric in metrics]
    constraints = [_below(place, thresholds[place]) for place in range(count, len(metrics))]
    samples = _SAMPLES if count == 1 else _FRONT_SAMPLES
    options: dict[str, Any] = {
        "model": ModelListGPyTorchModel(*models) if len(models) > 1 else models[0],
        "X_baseline": torch.as_tensor(base),
        "X_pending": torch.as_tensor(pending) if len(pending) else None,
        "sampler": SobolQMCNormalSampler(torch.Size([samples]), seed=seed),
        "constraints": constraints or None,
        "prune_baseline": False,
    }
    if count == 1:
        first = GenericMCObjective(_first) if len(models) > 1 else None
        return qLogNoisyExpectedImprovement(**options, objective=first)
    objective = WeightedMCMultiOutputObjective(torch.ones(count, dtype=torch.double), list(range(count)))
    reference = _reference(metrics[:count], models[:count], base)
    return qLogNoisyExpectedHypervolumeImprovement(**options, ref_point=reference, objective=objective)


class Adjusted(AcquisitionFunction):
    """An acquisition plus a term: a person's belief about the optimum, or minus the logarithm of the cost."""

    def __init__(self, inner: AcquisitionFunction, term: Term) -> None:
        super().__init__(model=inner.model)
        self.inner = inner
        self._term = term

    def forward(self, X: Tensor) -> Tensor:
        """Return the value at rows (n, 1, dimensions): (n,)."""
        inner: Tensor = self.inner(X)
        return inner + self._term(X.squeeze(-2))


def _first(samples: Tensor, X: Tensor | None = None) -> Tensor:
    return samples[..., 0]


def _below(place: int, threshold: float) -> Callable[[Tensor], Tensor]:
    """Return a constraint of BoTorch, which holds where it is negative."""
    return lambda samples: threshold - samples[..., place]


def _reference(metrics: Sequence[Metric], models: Sequence[EnsembleGP], base: Array) -> Tensor:
    rows = torch.as_tensor(base)
    with torch.no_grad():
        values = torch.cat([model.posterior(rows).mixture_mean for model in models], dim=-1)
    front = values[is_non_dominated(values, deduplicate=False)].numpy()
    span = front.max(axis=0) - front.min(axis=0)
    wide = span if (span > 0).all() else span + (span <= 0)
    found = torch.as_tensor(front.min(axis=0) - _REFERENCE_MARGIN * wide)
    bounds = torch.tensor([metric.modelled.threshold for metric in metrics], dtype=torch.double)
    return torch.maximum(found, bounds)
