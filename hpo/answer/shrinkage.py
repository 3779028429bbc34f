"""Take the effect of selection off: the best of many noisy values is too good to be true.

The true values of a study's configurations are taken as draws from one distribution, which is estimated from the noisy
values themselves (empirical Bayes; Efron, 2010, Large-Scale Inference, chapter 1). It is a mixture of normal
distributions on a grid, so that a study with dead configurations, a middle field and a cluster at the top is none of it
in particular: the best are drawn towards their own cluster, not towards the dead. Its weights maximize the likelihood
(Jiang and Zhang, 2009, General maximum likelihood empirical Bayes estimation of normal means), with a prior that counts
as few configurations and keeps a study of two or three from concluding too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..arrays import Array

_COMPONENTS: Final = 60
_MARGIN: Final = 3.0
"""True values lie at most this many standard deviations of the noise beyond what was seen."""
_ITERATIONS: Final = 60
_PRIOR_COUNT: Final = 2.0
"""The normal distribution that the mixture starts from counts as this many configurations."""
_PRIOR_FREEDOM: Final = 2.0
_LEAST_SHARE: Final = 0.1
"""Of the variance of the noise: the least variance of the true values."""
_NEGLIGIBLE: Final = 1e-12
_DIVERGED: Final = 20.0
"""What lies below the others by more than this many times their own extent has diverged."""
_LEAST_ORDINARY: Final = 3
"""So many configurations at least have not."""
_CONTENDERS: Final = 64
"""The probability to be the best is computed among at most this many; that of the others is nearly 0."""
_QUANTILES: Final = 64
_LEAST_SD: Final = 1e-9
"""Of a value: what is known without error is treated as that uncertain, so that equal values share the probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The distribution of the true values: normal distributions of one variance on an even grid."""

    centres: Array
    """Ascending, (components,)."""
    width: float
    """Variance of each."""
    weights: Array
    """They add up to 1, (components,)."""
    spread: float
    """Standard deviation of the true values, as if they were normal."""
    noise: float
    """Mean variance of the noise of the values that it was estimated from."""
    count: int
    """Number of these values."""
    least: float
    """Values below it were left out: their configurations have diverged, and say nothing about the others."""

    def unsure_centre(self, variances: Array) -> Array:
        """Return what it adds to the variances of expectations that its centre is an estimate (Morris, 1983)."""
        total = self.noise + self.spread**2
        return (variances / (variances + self.spread**2)) ** 2 * total / self.count


def fitted(means: Array, variances: Array) -> Mixture:
    """Return the distribution of the true values, given unbiased noisy ones and the variances of their noise, (n,)."""
    least = least_ordinary(means, variances)
    means, variances = means[means >= least], variances[means >= least]
    noise = float(variances.mean())
    spread = _spread(means, noise)
    margin = _MARGIN * np.sqrt(noise)
    centres = np.linspace(means.min() - margin, means.max() + margin, _COMPONENTS)
    width = float(centres[1] - centres[0]) ** 2
    likelihood = _likelihood(centres, width, means, variances)
    prior = np.exp(-0.5 * ((centres - means.mean()) / spread) ** 2)
    prior /= prior.sum()
    weights = prior
    for _ in range(_ITERATIONS):
        counts = weights * (likelihood.T @ (1.0 / (likelihood @ weights)))
        weights = (counts + _PRIOR_COUNT * prior) / (len(means) + _PRIOR_COUNT)
    return Mixture(
        centres=centres, width=width, weights=weights, spread=spread, noise=noise, count=len(means), least=least
    )


def shrunken(means: Array, variances: Array) -> tuple[Array, Array]:
    """Return the expected true values and their variances, (n,), given unbiased noisy ones and their variances.

    Without noise they are the values themselves. A higher value of the same variance has a higher expectation.
    """
    expected, posterior = means.copy(), variances.copy()
    known = means >= least_ordinary(means, variances)
    if float(variances[known].mean()) > _NEGLIGIBLE * float(means[known].var()):
        expected[known], posterior[known] = _expected(fitted(means, variances), means[known], variances[known])
    return expected, posterior


def _expected(found: Mixture, means: Array, variances: Array) -> tuple[Array, Array]:
    shares = _likelihood(found.centres, found.width, means, variances) * found.weights
    shares /= shares.sum(axis=1, keepdims=True)
    total = found.width + variances[:, None]
    each = (found.centres * variances[:, None] + means[:, None] * found.width) / total
    expected = (shares * each).sum(axis=1)
    within = found.width * variances[:, None] / total
    posterior = (shares * (within + (each - expected[:, None]) ** 2)).sum(axis=1)
    # The centre and the width of the distribution are estimates too (Morris, 1983, section 5): of one configuration
    # nothing is taken off, and its value is as uncertain as it was.
    extent = 2 / (len(means) - 1 + _PRIOR_FREEDOM) * (means - expected) ** 2
    return expected, posterior + found.unsure_centre(variances) + extent


def _likelihood(centres: Array, width: float, means: Array, variances: Array) -> Array:
    """Return how likely each value is by each component, (n, components), up to a factor for each value."""
    total = width + variances[:, None]
    logs = -0.5 * (means[:, None] - centres) ** 2 / total
    return np.asarray(np.exp(logs - logs.max(axis=1, keepdims=True)))


def least_ordinary(means: Array, variances: Array) -> float:
    """Return the value below which configurations have diverged; the least of all where none has.

    It is the first gap below the best that is many times as wide as all that lies above it. The grid of the mixture
    could not resolve the good configurations if it reached down to the others.
    """
    order = np.argsort(-means, kind="stable")
    values = means[order]
    scale = np.sqrt(np.cumsum(variances[order]) / np.arange(1, len(values) + 1))
    above = np.maximum(values[0] - values[:-1], scale[:-1])
    gaps = values[:-1] - values[1:] > _DIVERGED * above
    gaps[: _LEAST_ORDINARY - 1] = False
    return float(values[np.argmax(gaps)] if gaps.any() else values[-1])


def _spread(means: Array, noise: float) -> float:
    """Return the standard deviation of the true values, estimated as if they were normal.

    Beforehand it is believed to be that of the noise, which counts as `_PRIOR_FREEDOM` degrees of freedom.
    """
    squares = float(((means - means.mean()) ** 2).sum()) + _PRIOR_FREEDOM * 2 * noise
    total = squares / (len(means) - 1 + _PRIOR_FREEDOM)
    return float(np.sqrt(max(total - noise, _LEAST_SHARE * noise)))


def chances_to_be_best(means: Array, variances: Array) -> Array:
    """Return for each of independent normal beliefs, (n,), the probability that its value is the highest of all.

    Equal beliefs have equal probabilities, and all of them together 1.
    """
    from scipy.special import ndtr, ndtri

    # Each by its own size: a diverged loss among them must not blur the others.
    sds = np.sqrt(variances) + _LEAST_SD * (np.abs(means) + _LEAST_SD)
    contenders = np.argsort(-(means + 2 * sds), kind="stable")[:_CONTENDERS]
    mean, sd = means[contenders], sds[contenders]
    points = mean[:, None] + sd[:, None] * ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    below = ndtr((points[:, :, None] - mean) / sd)
    below[np.arange(len(mean)), :, np.arange(len(mean))] = 1.0
    found = np.zeros(len(means))
    found[contenders] = below.prod(axis=2).mean(axis=1)
    return np.asarray(found / found.sum())
