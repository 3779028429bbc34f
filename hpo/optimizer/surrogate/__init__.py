"""Bayesian optimization by BoTorch: our Gaussian processes as BoTorch models, its acquisition functions and its search.

From the bottom up: `embedding` (a space's coordinates as the kernel sees them, differentiable); `ensemble` (a Gaussian
process for several samples of the hyperparameters); `acquisition` and `terms` (log noisy expected improvement, or
hypervolume improvement, under constraints and with pending trials; weights, costs and rules); `candidates` and `search`
(its maximum in a mixed conditional space); `plan` (the models of a study, and what they propose).

The models' hyperparameters and transforms are inferred in `hpo.optimizer.bayes.models`.
"""

import warnings

with warnings.catch_warnings():
    # linear_operator, below BoTorch, uses torch.jit.script.
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    import linear_operator

__all__ = ["linear_operator"]
