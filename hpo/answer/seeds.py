"""How much trainings of one configuration differ, by the trials that repeat an earlier one.

Who is trained again is no random choice: the finalists are those whose first training was lucky. What is left of that
luck when they are trained again is no sign of how much seeds differ, so the first trainings do not count like the
others. They say where the configurations lie (`shrinkage.Mixture`), and a further training is compared with what is
then expected of its configuration. This conditional likelihood is right however the repeated configurations were
chosen among the first trainings. Where the seeds differ more, more of the luck of the first trainings is taken off, so
the mixture is estimated anew for each variance of a grid.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..arrays import Array, Indices
from .shrinkage import Mixture, fitted, least_ordinary

_STEPS: Final = 41
_FACTOR: Final = 4.0
"""The grid of standard deviations goes this far beyond what is believed beforehand and what is seen."""
_LEAST_PRIOR: Final = 0.01
"""The least variance believed beforehand, as a share of the variance that is seen; a prior needs some scale."""


def between_seeds(
    ends: Array, variances: Array, owners: Indices, *, sampling: Array, prior: float, freedom: float
) -> float:
    """Return the variance between the trainings of a configuration.

    The prior is a scaled inverse chi-square distribution, as which the believed variance `prior` counts as `freedom`
    trainings again. Without any, it is the result.

    Args:
        ends: believed end of each trial, (n,), those of a configuration in the order of their trials.
        variances: of the ends, by the noise of epochs, (n,).
        owners: the configuration of each trial, counted from 0 without gaps, (n,).
        sampling: variance that all trainings of a configuration have in common, (configurations,).
    """
    # A diverged loss says nothing about how much seeds differ where none diverges.
    kept = ends >= least_ordinary(ends, variances + prior)
    known, owners = np.unique(owners[kept], return_inverse=True)
    ends, variances, sampling = ends[kept], variances[kept], sampling[known]
    order = np.argsort(owners, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(owners))[:-1])
    firsts = np.array([places[0] for places in members])
    repeated = [owner for owner, places in enumerate(members) if len(places) > 1]
    means = np.bincount(owners, ends) / np.bincount(owners)
    squares = float(((ends - means[owners]) ** 2).sum())
    if not squares:
        return freedom * prior / (freedom + len(ends) - len(known))
    seen = squares / (len(ends) - len(known))
    prior = max(prior, _LEAST_PRIOR * seen)
    grid = np.geomspace(min(prior, seen) / _FACTOR**2, max(prior, seen) * _FACTOR**2, _STEPS)
    logs = -freedom / 2 * (np.log(grid) + prior / grid)
    for place, between in enumerate(grid):
        mixture = fitted(ends[firsts], variances[firsts] + between + sampling)
        logs[place] += sum(
            _log_density(mixture, ends[members[owner]], variances[members[owner]] + between, float(sampling[owner]))
            for owner in repeated
        )
    weights = np.exp(logs - logs.max())
    return float(weights.sum() / (weights / grid).sum())


def _log_density(mixture: Mixture, ends: Array, variances: Array, shared: float) -> float:
    """Return the log density of the further trainings of a configuration, given the first; 0 beyond the mixture."""
    if ends[0] < mixture.least:
        return 0.0
    first, own = ends[0], variances[0]
    wide = mixture.width + shared
    logs = np.log(mixture.weights + 1e-300) - 0.5 * (first - mixture.centres) ** 2 / (wide + own)
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    expected = (mixture.centres * own + first * wide) / (wide + own)
    # The mixture is an estimate too (see `shrunken`).
    unsure = wide * own / (wide + own) + mixture.unsure_centre(variances[:1])[0]
    each = 1.0 / variances[1:]
    precision = float(each.sum())
    mean = float(each @ ends[1:]) / precision
    apart = float(each @ (ends[1:] - mean) ** 2)
    total = unsure + 1.0 / precision
    density = shares @ (np.exp(-0.5 * (mean - expected) ** 2 / total) / np.sqrt(total))
    return float(np.log(density + 1e-300) + 0.5 * (np.log(each).sum() - np.log(precision) - apart))
