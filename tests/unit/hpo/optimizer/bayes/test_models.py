"""The models of a study: hyperparameters around the most probable ones, and the two views of an objective."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.optimizer.bayes.curves import Outcome
from hpo.optimizer.bayes.fit import Evidence, fit
from hpo.optimizer.bayes.gp import Process
from hpo.optimizer.bayes.kernels import gaussian, matern
from hpo.optimizer.bayes.laplace import sample_around
from hpo.optimizer.bayes.models import Data, model

from ...records import spec_with

RNG = np.random.default_rng(3)
POINTS = RNG.random((40, 2))
COLUMNS = np.array([0, 1])


def _vectors(evidence: Evidence, centre: np.ndarray, count: int) -> np.ndarray:
    drawn = sample_around(evidence, centre, count)
    return np.array(
        [[*np.log(h.lengthscales), np.log(h.outputscale), np.log(h.noise), h.mean, np.log(h.trend)] for h in drawn]
    )


def test_samples_around_the_most_probable_have_the_spread_of_the_density_there() -> None:
    """Against second differences of the density itself, in the directions that the data decide."""
    targets = np.sin(9 * POINTS[:, 0]) + 0.5 * POINTS[:, 1] + 0.1 * RNG.standard_normal(40)
    evidence = Evidence(POINTS, targets, np.zeros(40), COLUMNS)
    centre = fit(evidence).vector
    found = _vectors(evidence, centre, 100_000)
    assert np.allclose(found.mean(axis=0), centre)
    steps = 0.02 * np.eye(6)

    def value(vector: np.ndarray) -> float:
        return float(evidence(vector)[0])

    hessian = np.array(
        [
            [
                value(centre + a + b) - value(centre + a - b) - value(centre - a + b) + value(centre - a - b)
                for a in steps
            ]
            for b in steps
        ]
    ) / (4 * 0.02**2)
    # The priors alone bend the density in every direction, so nothing is cut off here.
    curvature = hessian * np.outer(evidence.spread, evidence.spread)
    assert np.linalg.eigvalsh(curvature[:5, :5]).min() > 1
    assert curvature[5, 5] == pytest.approx(1)  # these points have no column that the trend is read from
    assert np.allclose(np.cov(found.T), np.linalg.inv(hessian), rtol=0.1, atol=0.004)


def test_without_data_samples_around_the_centre_have_the_spread_of_the_priors() -> None:
    evidence = Evidence(POINTS[:1], np.zeros(1), np.full(1, 1e12), COLUMNS)
    found = _vectors(evidence, evidence.centre, 4000)
    assert np.allclose(found.std(axis=0), evidence.spread, rtol=0.05)


@pytest.mark.parametrize("is_logarithmic", [True, False])
def test_the_second_view_is_a_shape_of_the_other_kind(is_logarithmic: bool) -> None:
    distance = ((POINTS - 0.4) ** 2).sum(axis=1)
    losses = np.exp(4 * distance) if is_logarithmic else 1 + distance
    outcomes = [Outcome(params={}, values={"val_loss": float(loss)}, sds={"val_loss": 0.0}) for loss in losses]
    spec = spec_with(objectives=[{"metric": "val_loss", "direction": "minimize"}])
    data = Data(points=POINTS, columns=COLUMNS, outcomes=outcomes)
    first, second = (model(spec, data, second_view=view)[0].transform.ceiling is None for view in (False, True))
    assert first is not second


@pytest.mark.parametrize("count", [12, 40])
def test_the_expectation_of_one_objective_is_over_both_kernels(count: int) -> None:
    """Against each kernel alone: what is expected lies halfway between."""
    values = np.sin(9 * POINTS[:count, 0]) + POINTS[:count, 1]
    outcomes = [Outcome(params={}, values={"val_loss": float(value)}, sds={"val_loss": 0.0}) for value in values]
    spec = spec_with(objectives=[{"metric": "val_loss", "direction": "minimize"}])
    data = Data(points=POINTS[:count], columns=COLUMNS, outcomes=outcomes)
    process = model(spec, data)[0].modelled.process
    hypers = process.hypers
    query = RNG.random((6, 2))
    targets = model(spec, data)[0].transform.forward(-values)
    one, other = alone = [
        Process(data.points, targets, np.zeros(count), COLUMNS, [h for h in hypers if h.kernel is kernel]).mean(query)
        for kernel in (matern, gaussian)
    ]
    assert not np.allclose(one, other)
    assert np.allclose(process.mean(query), np.mean(alone, axis=0))


def test_several_objectives_are_modelled_with_the_matern_kernel_alone() -> None:
    values = {"val_top1": POINTS[:, 0], "epoch_seconds": POINTS[:, 1]}
    outcomes = [
        Outcome(
            params={},
            values={name: float(column[place]) for name, column in values.items()},
            sds=dict.fromkeys(values, 0.0),
        )
        for place in range(20)
    ]
    spec = spec_with(objectives=[{"metric": name} for name in values])
    found = model(spec, Data(points=POINTS[:20], columns=COLUMNS, outcomes=outcomes))
    assert [{hyper.kernel for hyper in metric.modelled.process.hypers} for metric in found] == [{matern}, {matern}]


def _noisy(count: int, sd: float) -> Data:
    """Return the data of a smooth metric with known noise."""
    truth = 0.5 - 0.3 * (POINTS[:count, 0] - 0.4) ** 2
    shown = truth + sd * np.random.default_rng(2).standard_normal(count)
    outcomes = [Outcome(params={}, values={"val_top1": float(value)}, sds={"val_top1": sd}) for value in shown]
    return Data(points=POINTS[:count], columns=COLUMNS, outcomes=outcomes)


@pytest.mark.parametrize(("count", "factor"), [(4, 5.0), (10, 2.6)])
def test_a_prediction_is_of_an_outcome_and_few_do_not_determine_the_spread(count: int, factor: float) -> None:
    metric = model(spec_with(), _noisy(count, 0.01))[0]
    query = RNG.random((5, 2))
    variance = metric.modelled.process.marginal(query)[1]
    assert metric.transform.ceiling is None
    noise = np.mean([hyper.noise for hyper in metric.modelled.process.hypers])
    assert metric.predict(query)[1] ** 2 == pytest.approx(factor * (variance + noise) * metric.transform.scale**2)
