"""The ensemble against a stock Gaussian process for each member, and against the process in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hpo.optimizer.bayes.gp import Hyperparameters, Process
from hpo.optimizer.bayes.kernels import gaussian, matern
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.surrogate.embedding import Embedding
from hpo.optimizer.surrogate.ensemble import EnsembleGP

from ...records import spec_with
from . import stock

SPACE = Space(
    spec_with(
        space={
            "lr": {"type": "float", "low": 0.1, "high": 0.9, "log": True},
            "dropout": {"type": "float", "low": 0.1, "high": 0.9},
        }
    )
)
RNG = np.random.default_rng(3)
ROWS, QUERY = RNG.random((9, 2)), torch.as_tensor(RNG.random((6, 2)))
TARGETS, NOISE = RNG.standard_normal(9), RNG.random(9) * 0.2
HYPERS = [
    Hyperparameters(lengthscales=np.array([0.4, 0.9]), outputscale=1.3, noise=0.03, mean=0.1, trend=0.4),
    Hyperparameters(
        lengthscales=np.array([0.8, 0.5]), outputscale=0.7, noise=0.01, mean=-0.2, trend=0.7, kernel=gaussian
    ),
    Hyperparameters(lengthscales=np.array([0.5, 0.5]), outputscale=1.0, noise=0.02, mean=0.0),
]


def _ensemble(sign: float = 1.0) -> EnsembleGP:
    return EnsembleGP(Embedding(SPACE), SPACE.embed(ROWS), TARGETS, NOISE, HYPERS, sign=sign)


def _trend(hyper: Hyperparameters, rows: Tensor) -> Tensor:
    weights = torch.tensor([1.0, 0.2], dtype=torch.double)  # of a logarithmic range and of another
    return hyper.trend * (weights * (2 * rows - 1) ** 2).sum(dim=-1)


def _stock(hyper: Hyperparameters) -> stock.SingleTaskGP:
    """Return a stock model of what the trend leaves, with all noise given as known."""
    kernel = stock.ScaleKernel(
        stock.MaternKernel(nu=2.5, ard_num_dims=2) if hyper.kernel is matern else stock.RBFKernel(ard_num_dims=2)
    )
    variances = torch.as_tensor(NOISE + hyper.noise)[:, None]
    rows = torch.as_tensor(ROWS)
    targets = (torch.as_tensor(TARGETS) + _trend(hyper, rows))[:, None]
    model = stock.SingleTaskGP(rows, targets, variances, covar_module=kernel.double(), outcome_transform=None)
    model.covar_module.outputscale = hyper.outputscale
    model.covar_module.base_kernel.lengthscale = torch.as_tensor(hyper.lengthscales)
    model.mean_module.initialize(constant=torch.tensor(hyper.mean).double())
    return model


def _moments(model: EnsembleGP, rows: Tensor) -> tuple[Tensor, Tensor]:
    found = model.posterior(rows).distribution
    return found.mean.detach(), found.covariance_matrix.detach()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_member_is_the_stock_posterior(sign: float) -> None:
    means, covariances = _moments(_ensemble(sign), QUERY)
    for place, hyper in enumerate(HYPERS):
        posterior = _stock(hyper).posterior(QUERY)
        assert isinstance(posterior, stock.GPyTorchPosterior)
        expected = posterior.distribution
        torch.testing.assert_close(
            means[place], sign * (expected.mean.detach() - _trend(hyper, QUERY)), atol=1e-7, rtol=0
        )
        torch.testing.assert_close(covariances[place], expected.covariance_matrix.detach(), atol=1e-7, rtol=0)


def test_the_mixture_is_that_of_the_process_that_predictions_are_read_from() -> None:
    process = Process(SPACE.embed(ROWS), TARGETS, NOISE, SPACE.columns, HYPERS)
    posterior = _ensemble().posterior(QUERY[:, None])
    mean, variance = process.marginal(SPACE.embed(QUERY.numpy()))
    np.testing.assert_allclose(posterior.mixture_mean.detach()[:, 0, 0].numpy(), mean, atol=1e-7)
    np.testing.assert_allclose(posterior.mixture_variance.detach()[:, 0, 0].numpy(), variance, atol=1e-7)
    np.testing.assert_allclose(process.mean(SPACE.embed(QUERY.numpy())), mean)


def test_rows_that_a_batch_shares_change_nothing() -> None:
    batch = torch.stack([torch.cat([QUERY[:3], QUERY[place : place + 1]]) for place in (3, 4, 5)])
    means, covariances = _moments(_ensemble(), batch)
    assert means.shape == (3, 3, 4)
    for place, rows in enumerate(batch):
        alone = _moments(_ensemble(), rows)
        torch.testing.assert_close(means[place], alone[0])
        torch.testing.assert_close(covariances[place], alone[1])


@pytest.mark.parametrize("shared", [0, 3, 5])
def test_parts_of_covariances_are_those_of_the_whole(shared: int) -> None:
    rows = torch.as_tensor(np.random.default_rng(5).random((4, 6, 2)))
    rows[:, :shared] = rows[0, :shared]
    found = _ensemble().posterior(rows).distribution.lazy_covariance_matrix
    whole = found.to_dense()
    for part in (np.s_[..., -1:, :], np.s_[..., 2:, :], np.s_[..., :2, :], np.s_[..., -1:, 2:], np.s_[1, :, :, :]):
        torch.testing.assert_close(found[part].to_dense(), whole[part])
    torch.testing.assert_close(found.diagonal(), whole.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(found.unsqueeze(0).to_dense(), whole[None])
    torch.testing.assert_close(found.expand(2, *whole.shape).to_dense(), whole.expand(2, *whole.shape))


def test_an_observation_has_the_noise_of_each_member() -> None:
    model = _ensemble()
    extra = model.posterior(QUERY, observation_noise=True).variance - model.posterior(QUERY).variance
    torch.testing.assert_close(extra[:, 0, 0].detach(), torch.tensor([0.03, 0.01, 0.02]).double())


def test_the_mean_of_the_mixture_has_the_slope_of_differences() -> None:
    model, step = _ensemble(), 1e-6
    rows = QUERY[:1].clone().requires_grad_()
    model.posterior(rows).mixture_mean.sum().backward()
    assert rows.grad is not None
    for axis in range(2):
        moved = torch.zeros(1, 2, dtype=torch.double)
        moved[0, axis] = step
        rise = model.posterior(QUERY[:1] + moved).mixture_mean - model.posterior(QUERY[:1] - moved).mixture_mean
        assert rows.grad[0, axis].item() == pytest.approx(rise.item() / (2 * step), rel=1e-4)
