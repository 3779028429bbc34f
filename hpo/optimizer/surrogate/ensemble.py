"""A Gaussian process for several samples of its hyperparameters, as a fully Bayesian model of BoTorch.

    k(x, x') = outputscale * kernel(d),  d^2 = sum over parameters of |z - z'|^2 / lengthscale^2

where z is the embedding of x. The mean is a constant less `trend` times the distance from the middle of the space,
which one column of z holds. The hyperparameters are parameters of the module with a leading axis of members. The
posterior is written out with cached factors: the matrices are small, and gpytorch's lazy ones take most of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.gpytorch import GPyTorchModel
from botorch.posteriors.fully_bayesian import MCMC_DIM, GaussianMixturePosterior
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DenseLinearOperator, LinearOperator
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor
from torch.nn import Parameter

from ...arrays import Array
from ..bayes.gp import Hyperparameters
from ..bayes.kernels import DISTANCE_FROM_MIDDLE, matern
from .embedding import Embedding

_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-9
"""Added to the variances of a joint posterior, as a share of the output scale."""


class EnsembleGP(GPyTorchModel):
    """One metric; the members are samples of the hyperparameters."""

    _is_fully_bayesian = True
    _is_ensemble = True

    def __init__(
        self,
        embedding: Embedding,
        points: Array,
        targets: Array,
        noise: Array,
        hypers: Sequence[Hyperparameters],
        *,
        sign: float = 1.0,
    ) -> None:
        """Condition on `targets` (n,) at embedded `points` (n, columns); `noise` (n,) is added to their variances.

        With `sign` -1 the posterior is that of the negated function.
        """
        super().__init__()
        self.embedding = embedding
        self._sign = sign
        self.lengthscale = _fixed([hyper.lengthscales.tolist() for hyper in hypers])
        self.outputscale = _fixed([hyper.outputscale for hyper in hypers])
        self.noise = _fixed([hyper.noise for hyper in hypers])
        self.mean = _fixed([hyper.mean for hyper in hypers])
        self.trend = _fixed([hyper.trend for hyper in hypers])
        self._is_matern = torch.tensor([hyper.kernel is matern for hyper in hypers])
        self._scales = self.outputscale[:, None, None]
        self._has_trend = embedding.columns == DISTANCE_FROM_MIDDLE
        self._weights = torch.where(self._has_trend, 0.0, 1.0 / self.lengthscale[:, None, embedding.columns])
        self._points = torch.as_tensor(points) * self._weights
        covariance = self._scales * self._kernel(_squared(self._points, self._points))
        covariance = covariance + torch.diag_embed(self.noise[:, None] + torch.as_tensor(noise))
        factor = psd_safe_cholesky(covariance)
        identity = torch.eye(len(points), dtype=torch.double).expand_as(factor)
        self._inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        residual = torch.as_tensor(targets) - self._prior_means(torch.as_tensor(points))
        self._alpha = (self._inverse.mT @ (self._inverse @ residual[..., None]))[..., 0]

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """The number of members."""
        return self.outputscale.shape

    def posterior(  # type: ignore[override]  # BoTorch's own classes disagree on the order
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
        **_: Any,
    ) -> GPyTorchPosterior:
        """Return the posterior at rows X (..., q, dimensions), of shape (..., members, q, 1).

        It is that of the function; with `observation_noise`, that of an observation without noise of its own.
        """
        extra = _JITTER * self._scales
        if observation_noise is True:
            extra = extra + self.noise[:, None, None]
        common = _common_rows(X)
        own, shared = self._at(X[..., common:, :]), self._shared(X, common)
        means = own.means
        if shared is not None:
            means = torch.cat([shared.means.expand(*means.shape[:-2], -1, -1), means], dim=-1)
        covariance = _Joint(*_tensors(shared or own.none()), *_tensors(own), self._scales, extra, self._is_matern)
        posterior = GaussianMixturePosterior(MultivariateNormal(self._sign * means, covariance))
        if posterior_transform is None:
            return posterior
        transformed: GPyTorchPosterior = posterior_transform(posterior)
        return transformed

    def _at(self, rows: Tensor) -> _Rows:
        """Return what the posterior needs of rows (..., q, dimensions)."""
        embedded = self.embedding(rows).unsqueeze(MCMC_DIM)
        points = embedded * self._weights
        cross = self._scales * self._kernel(_squared(points, self._points))
        means = self._prior_means(embedded) + (cross @ self._alpha[..., None])[..., 0]
        return _Rows(points=points, means=means, half=cross @ self._inverse.mT)

    def _prior_means(self, embedded: Tensor) -> Tensor:
        """Return the means before any observation, (..., members, q)."""
        return self.mean[:, None] - self.trend[:, None] * embedded[..., self._has_trend].sum(dim=-1)

    def _shared(self, rows: Tensor, common: int) -> _Rows | None:
        if not common:
            return None
        with torch.no_grad():
            return self._at(rows.reshape(-1, *rows.shape[-2:])[0, :common])

    def _kernel(self, squared: Tensor) -> Tensor:
        return _kernel(squared, self._is_matern)


class _Joint(LinearOperator):  # type: ignore[misc]  # linear_operator has no types
    """The covariances of rows of which the first may be shared by the whole batch, computed when they are asked for.

    Many points are usually asked for their variances alone. An acquisition keeps what it needs of the shared rows, its
    base, and asks for those of the others with all: with 200 pending trials, a full matrix for each candidate would be
    2.5 MB.
    """

    def __init__(  # noqa: PLR0917 - linear_operator wants each tensor as an argument, in this order
        self,
        shared_points: Tensor,
        shared_half: Tensor,
        points: Tensor,
        half: Tensor,
        scales: Tensor,
        extra: Tensor,
        is_matern: Tensor,
    ) -> None:
        """Take what `_Rows` has of the shared rows (members, rows, ...) and of the others (..., members, rows, ...)."""
        super().__init__(shared_points, shared_half, points, half, scales, extra, is_matern)
        self._shared, self._own = (shared_points, shared_half), (points, half)
        self._scales, self._extra, self._is_matern = scales, extra, is_matern
        self._count = shared_points.shape[-2]

    def _size(self) -> torch.Size:
        rows = self._count + self._own[1].shape[-2]
        return torch.Size([*self._own[1].shape[:-2], rows, rows])

    def _transpose_nonbatch(self) -> _Joint:
        return self

    def _diagonal(self) -> Tensor:
        own, shared = (
            (self._scales + self._extra)[..., 0] - half.square().sum(dim=-1) for half in (self._own[1], self._shared[1])
        )
        return torch.cat([shared.expand(*self.batch_shape, -1), own], dim=-1)

    def _matmul(self, rhs: Tensor) -> Tensor:
        return self.to_dense() @ rhs

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if isinstance(row_index, slice) and all(_is_everything(index) for index in (col_index, *batch_indices)):
            first, last, step = row_index.indices(self.shape[-2])
            if step == 1 and first >= self._count:
                return DenseLinearOperator(self._below()[..., first - self._count : last - self._count, :])
        return DenseLinearOperator(self.to_dense())._getitem(row_index, col_index, *batch_indices)

    def _unsqueeze_batch(self, dim: int) -> LinearOperator:
        return DenseLinearOperator(self.to_dense().unsqueeze(dim))

    def _expand_batch(self, batch_shape: torch.Size | list[int]) -> LinearOperator:
        return DenseLinearOperator(self.to_dense().expand(*batch_shape, *self.matrix_shape))

    def to_dense(self) -> Tensor:
        """Return the matrices."""
        below = self._below()
        if not self._count:
            return below
        corner = self._noisy(self._between(self._shared, self._shared)).expand(*self.batch_shape, -1, -1)
        above = torch.cat([corner, below[..., : self._count].mT], dim=-1)
        return torch.cat([above, below], dim=-2)

    def _below(self) -> Tensor:
        """Return the covariances of the rows that are not shared with all."""
        own = self._noisy(self._between(self._own, self._own))
        return torch.cat([self._between(self._own, self._shared), own], dim=-1) if self._count else own

    def _between(self, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
        prior = self._scales * _kernel(_squared(left[0], right[0]), self._is_matern)
        return prior - left[1] @ right[1].mT

    def _noisy(self, covariance: Tensor) -> Tensor:
        return covariance + self._extra * torch.eye(covariance.shape[-1], dtype=torch.double)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Scaled points, means, and covariances with the observations times the inverse factor, by member."""

    points: Tensor
    means: Tensor
    half: Tensor

    def none(self) -> _Rows:
        """Return no rows of the same members."""
        first = (0,) * (self.half.dim() - 3)
        return _Rows(
            points=self.points[first][..., :0, :], means=self.means[first][..., :0], half=self.half[first][..., :0, :]
        )


def _is_everything(index: Any) -> bool:
    return isinstance(index, slice) and index == slice(None)


def _tensors(rows: _Rows) -> tuple[Tensor, Tensor]:
    return rows.points, rows.half


def _common_rows(rows: Tensor) -> int:
    """Return how many leading rows are the same in the whole batch: the base of an acquisition, computed only once."""
    flat = rows.detach().reshape(-1, *rows.shape[-2:])
    if len(flat) < 2 or rows.shape[-2] < 2:
        return 0
    is_same = (flat == flat[:1]).all(dim=0).all(dim=-1)[:-1]
    return int(is_same.long().cumprod(dim=0).sum())


def _fixed(values: list[Any]) -> Parameter:
    return Parameter(torch.tensor(values, dtype=torch.double), requires_grad=False)


def _squared(left: Tensor, right: Tensor) -> Tensor:
    found = -2.0 * (left @ right.mT)
    found = found + left.square().sum(-1)[..., :, None] + right.square().sum(-1)[..., None, :]
    return found.clamp_min(1e-20)


def _kernel(squared: Tensor, is_matern: Tensor) -> Tensor:
    """Return the kernels of the members; the last three axes are members and two of points."""
    if bool(is_matern.all()):
        return _matern(squared)
    return torch.where(is_matern[:, None, None], _matern(squared), torch.exp(-0.5 * squared))


def _matern(squared: Tensor) -> Tensor:
    scaled = _SQRT5 * squared.sqrt()
    return (1 + scaled + (5 / 3) * squared) * torch.exp(-scaled)
