"""Noisy expected (hypervolume) improvement against BoTorch's with many samples of the same models."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from hpo.optimizer.bayes.acquisition import Acquisition, Modelled
from hpo.optimizer.bayes.gp import Hyperparameters, Process
from hpo.optimizer.bayes.space import Space

from ...records import spec_with
from . import stock

NAMES = ["lr", "dropout", "momentum"]
SPACE = Space(spec_with(space={name: {"type": "float", "low": 0.1, "high": 0.9} for name in NAMES}))
MIXED = Space(
    spec_with(
        space={
            "model": {"type": "categorical", "choices": ["a", "b", "c"]},
            "model.depth": {"type": "float", "low": 1.0, "high": 3.0, "when": {"model": ["a", "b"]}},
            "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "clip.stride": {"type": "int", "low": 1, "high": 40},
        }
    )
)
RNG = np.random.default_rng(3)
ROWS = RNG.random((14, 3))
PENDING = RNG.random((2, 3))
BASE = np.concatenate([ROWS, PENDING])
QUERY = RNG.random((12, 3))
HYPERS = [
    Hyperparameters(lengthscales=np.array([0.4, 0.6, 0.9]), outputscale=1.3, noise=0.03, mean=0.1),
    Hyperparameters(lengthscales=np.array([0.8, 0.5, 0.4]), outputscale=0.8, noise=0.01, mean=-0.2),
    Hyperparameters(lengthscales=np.array([0.6, 0.6, 0.6]), outputscale=1.0, noise=0.02, mean=0.0),
]
TARGETS = RNG.standard_normal((14, 3)) * 0.5 + np.stack(
    [np.sin(4 * ROWS[:, 0]), ROWS[:, 1] - ROWS[:, 0], ROWS[:, 2]], axis=1
)


def _models(thresholds: list[float], objectives: int, space: Space = SPACE, rows: np.ndarray = ROWS) -> list[Modelled]:
    return [
        Modelled(
            process=Process(space.embed(rows), TARGETS[:, place], np.zeros(14), space.columns, [_hyper(place, space)]),
            is_objective=place < objectives,
            threshold=threshold,
        )
        for place, threshold in enumerate(thresholds)
    ]


def _hyper(place: int, space: Space) -> Hyperparameters:
    if space is SPACE:
        return HYPERS[place]
    return Hyperparameters(lengthscales=np.linspace(0.5, 1.2, space.dimensions), outputscale=1.0, noise=0.02, mean=0.0)


def _acquisition(models: list[Modelled], samples: int, base: np.ndarray = BASE, space: Space = SPACE) -> Acquisition:
    normals = np.random.default_rng(5).standard_normal((len(models), models[0].process.members, samples, len(base)))
    return Acquisition(space, models, base, normals)


def _stock_model(place: int) -> Any:
    hyper = HYPERS[place]
    kernel = stock.ScaleKernel(stock.MaternKernel(nu=2.5, ard_num_dims=3)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = stock.SingleTaskGP(
            torch.tensor(ROWS),
            torch.tensor(TARGETS[:, [place]]),
            train_Yvar=torch.full((14, 1), hyper.noise, dtype=torch.double),
            covar_module=kernel,
            outcome_transform=None,
        )
    kernel.base_kernel.lengthscale = torch.tensor(hyper.lengthscales)
    kernel.outputscale = hyper.outputscale
    model.mean_module.constant.data.fill_(hyper.mean)
    return model.eval()


def _sampler(count: int) -> Any:
    return stock.SobolQMCNormalSampler(torch.Size([count]), seed=0)


def test_the_posterior_is_that_of_botorch() -> None:
    process = _models([-math.inf], 1)[0].process
    posterior = _stock_model(0).posterior(torch.tensor(QUERY))
    mean, variance = process.marginal(SPACE.embed(QUERY))
    assert np.allclose(mean, posterior.mean.detach().numpy().ravel(), atol=1e-6)
    assert np.allclose(variance, posterior.variance.detach().numpy().ravel(), atol=1e-6)


def test_noisy_expected_improvement_is_that_of_botorch() -> None:
    ours = _acquisition(_models([-math.inf], 1), 4096).values(QUERY)
    acquisition = stock.qLogNoisyExpectedImprovement(
        _stock_model(0), torch.tensor(BASE), sampler=_sampler(4096), prune_baseline=False
    )
    theirs = acquisition(torch.tensor(QUERY[:, None])).detach().numpy()
    # BoTorch's samples seldom reach into the tail; ours are closed forms there.
    likely = theirs > -5
    assert likely.sum() >= 5
    assert ours[likely] == pytest.approx(theirs[likely], abs=0.1)
    assert (ours[~likely] < -5).all()


def test_noisy_hypervolume_improvement_is_that_of_botorch(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = [-0.4, -0.8]
    monkeypatch.setattr("hpo.optimizer.bayes.acquisition._reference", lambda *_: np.array(reference))
    ours = _acquisition(_models([-math.inf] * 2, 2), 2048).values(QUERY)
    acquisition = stock.qLogNoisyExpectedHypervolumeImprovement(
        stock.ModelListGP(_stock_model(0), _stock_model(1)),
        reference,
        torch.tensor(BASE),
        sampler=_sampler(1024),
        prune_baseline=False,
    )
    theirs = acquisition(torch.tensor(QUERY[:, None])).detach().numpy()
    likely = theirs > -5
    assert likely.sum() >= 5
    assert ours[likely] == pytest.approx(theirs[likely], abs=0.15)


@pytest.mark.parametrize(("objectives", "constraints"), [(1, 0), (1, 2), (2, 1), (3, 0)])
@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["continuous", "mixed"])
def test_the_gradient(objectives: int, constraints: int, space: Space) -> None:
    rows = space.from_unit(np.random.default_rng(1).random((14, space.dimensions)))
    models = _models([-math.inf] * objectives + [0.1] * constraints, objectives, space, rows)
    acquisition = _acquisition(models, 8, rows[:5], space)
    query = space.from_unit(0.1 + 0.8 * np.random.default_rng(2).random((8, space.dimensions)))
    values, gradient = acquisition(query)
    assert np.allclose(values, acquisition.values(query))
    for place, axis in enumerate(space.axes):
        step = np.zeros(space.dimensions)
        step[place] = 0.0 if axis.is_categorical else 1e-6
        numeric = (acquisition.values(query + step) - acquisition.values(query - step)) / 2e-6
        assert np.allclose(gradient[:, place], numeric, rtol=1e-4, atol=1e-4)


def test_many_rows_are_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    acquisition = _acquisition(_models([-math.inf, -math.inf, 0.1], 2), 8)
    whole, gradient = acquisition(QUERY)
    for at_once in (1, 300):
        monkeypatch.setattr("hpo.optimizer.bayes.acquisition._MAX_VALUES_AT_ONCE", at_once)
        values, parts = acquisition(QUERY)
        assert np.allclose(values, whole)
        assert np.allclose(parts, gradient)
        assert np.allclose(acquisition.values(QUERY), whole)


def test_without_a_feasible_trial_the_probability_of_feasibility_decides() -> None:
    models = _models([-math.inf, 2.5], 1)
    values = _acquisition(models, 512).values(QUERY)
    mean, variance = models[1].process.marginal(SPACE.embed(QUERY))
    assert np.argmax(values) == np.argmax((mean - 2.5) / np.sqrt(variance))
    assert np.isfinite(values).all()


def test_a_pending_trial_repels() -> None:
    models = _models([-math.inf], 1)
    place = QUERY[[int(np.argmax(_acquisition(models, 64, ROWS).values(QUERY)))]]
    before = _acquisition(models, 64, ROWS).values(place)
    after = _acquisition(models, 64, np.concatenate([ROWS, place])).values(place)
    assert after[0] < before[0] - 3
