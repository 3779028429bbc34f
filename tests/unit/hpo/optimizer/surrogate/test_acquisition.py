"""The acquisition against closed forms and stock models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hpo.optimizer.bayes.curves import Outcome
from hpo.optimizer.bayes.gp import Hyperparameters, Process
from hpo.optimizer.bayes.models import Data, Metric, model
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.surrogate import search
from hpo.optimizer.surrogate.acquisition import Adjusted, acquisition
from hpo.optimizer.surrogate.embedding import Embedding
from hpo.optimizer.surrogate.ensemble import EnsembleGP

from ...records import spec_with
from . import stock

SPEC = spec_with(
    space={name: {"type": "float", "low": 0.1, "high": 0.9} for name in ("lr", "dropout")},
    objectives=[{"metric": "val_top1"}, {"metric": "epoch_seconds"}],
    constraints=["peak_memory_gib <= 4"],
)
SPACE = Space(SPEC)
RNG = np.random.default_rng(3)
ROWS, QUERY = RNG.random((12, 2)), RNG.random((60, 2))
VALUES = {"val_top1": np.sin(4 * ROWS[:, 0]), "epoch_seconds": ROWS[:, 1], "peak_memory_gib": 3 + 2 * ROWS[:, 0]}
HYPERS = [
    Hyperparameters(lengthscales=np.array([0.4, 0.6]), outputscale=1.3, noise=1e-4, mean=0.1),
    Hyperparameters(lengthscales=np.array([0.9, 0.5]), outputscale=0.8, noise=1e-4, mean=-0.2),
]


def _metrics(*, members: int = 1) -> tuple[list[Metric], list[EnsembleGP]]:
    """Return the models of val_top1, epoch_seconds and peak_memory_gib, with the first hyperparameters of `HYPERS`."""
    outcomes = [
        Outcome(
            params={},
            values={name: float(values[place]) for name, values in VALUES.items()},
            sds=dict.fromkeys(VALUES, 0.0),
        )
        for place in range(len(ROWS))
    ]
    points, hypers = SPACE.embed(ROWS), HYPERS[:members]
    metrics, models = [], []
    for metric in model(SPEC, Data(points=points, columns=SPACE.columns, outcomes=outcomes)):
        targets = metric.transform.forward(metric.sign * VALUES[metric.name])
        process = Process(points, targets, np.zeros(12), SPACE.columns, hypers)
        metrics.append(replace(metric, modelled=replace(metric.modelled, process=process)))
        models.append(EnsembleGP(Embedding(SPACE), points, targets, np.zeros(12), hypers))
    return metrics, models


def _at(found: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(found(torch.as_tensor(QUERY)[:, None]).numpy())


NONE = np.empty((0, 2))


def test_one_objective_is_the_expected_improvement_of_a_noise_free_model() -> None:
    """The base is known almost exactly, so its best value is that of the observations; members are averaged."""
    metrics, models = _metrics(members=2)
    found = _at(acquisition(metrics[:1], models[:1], ROWS, NONE, 1))
    best = models[0].posterior(torch.as_tensor(ROWS)).mean.detach()[..., 0].max(dim=1).values
    posterior = models[0].posterior(torch.as_tensor(QUERY))
    mean, sd = posterior.mean.detach()[..., 0], posterior.variance.detach()[..., 0].sqrt()
    by_member = stock.log_ei_helper((mean - best[:, None]) / sd) + sd.log()
    expected = torch.logsumexp(by_member, dim=0) - math.log(2)
    likely = expected.numpy() > -6
    assert likely.sum() >= 4
    np.testing.assert_allclose(found[likely], expected.numpy()[likely], atol=0.25)


def test_a_constraint_weighs_the_improvement_by_its_probability() -> None:
    metrics, models = _metrics()
    free = _at(acquisition(metrics[:1], models[:1], ROWS[:4], NONE, 1))
    bound = [metrics[0], replace(metrics[2], modelled=replace(metrics[2].modelled, threshold=-100.0))]
    likely = free > -6
    assert likely.sum() >= 4
    sure = _at(acquisition(bound, [models[0], models[2]], ROWS[:4], NONE, 1))
    np.testing.assert_allclose(sure[likely], free[likely], atol=0.4)
    hopeless = [metrics[0], replace(metrics[2], modelled=replace(metrics[2].modelled, threshold=100.0))]
    with pytest.warns(Warning, match="all training points are infeasible"):
        lost = acquisition(hopeless, [models[0], models[2]], ROWS[:4], NONE, 1)
    assert _at(lost).max() < free.max() - 10


def test_near_a_pending_trial_little_is_expected() -> None:
    metrics, models = _metrics()
    place = int(np.argmax(_at(acquisition(metrics[:1], models[:1], ROWS, NONE, 1))))
    with_pending = _at(acquisition(metrics[:1], models[:1], ROWS, QUERY[place : place + 1], 1))
    without = _at(acquisition(metrics[:1], models[:1], ROWS, NONE, 1))
    assert with_pending[place] < without[place] - 2


@pytest.mark.parametrize("count", [1, 2])
def test_hundreds_of_trials_may_be_pending(count: int) -> None:
    metrics, models = _metrics()
    pending = np.random.default_rng(1).random((150, 2))
    found = acquisition(metrics[:count], models[:count], ROWS, pending, 1)
    together = _at(found)
    with torch.no_grad():
        alone = [float(found(torch.as_tensor(QUERY[place])[None, None])) for place in range(len(QUERY))]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    few = _at(acquisition(metrics[:count], models[:count], ROWS, pending[:10], 1))
    assert (together <= few + 0.3).all(), "what others try already is no improvement"


def test_models_of_several_metrics_score_fewer_rows_at_once_the_more_are_pending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "_MOST_COVARIANCES", 2**14)
    metrics, models = _metrics()
    pending = np.random.default_rng(1).random((10, 2))
    scored: dict[int, list[int]] = {1: [], 2: []}
    for count, sizes in scored.items():

        def noted(rows: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(len(rows))
            return torch.zeros(len(rows), dtype=torch.double)

        found = acquisition(metrics[:count], models[:count], ROWS, pending, 1)
        search.best_of(Adjusted(found, noted), QUERY)
        assert sum(sizes) >= len(QUERY)
    assert max(scored[1]) == len(QUERY), "one metric makes no whole matrices"
    assert max(scored[2]) <= 2**14 // (len(ROWS) + len(pending) + 1) ** 2


def test_two_objectives_are_the_stock_hypervolume_improvement() -> None:
    metrics, models = _metrics()
    found = acquisition(metrics[:2], models[:2], ROWS, NONE, 1)
    reference = found.ref_point
    assert isinstance(reference, torch.Tensor)
    values = torch.cat([one.posterior(torch.as_tensor(ROWS)).mixture_mean.detach() for one in models[:2]], dim=-1)
    is_front = [not bool(((values > value).all(dim=-1)).any()) for value in values]
    assert (reference < values[is_front].min(dim=0).values).all()
    many = stock.qLogNoisyExpectedHypervolumeImprovement(
        stock.ModelListGPyTorchModel(*models[:2]),
        reference,
        torch.as_tensor(ROWS),
        sampler=stock.SobolQMCNormalSampler(torch.Size([512]), seed=9),
    )
    expected, got = _at(many), _at(found)
    likely = expected > -6
    assert likely.sum() >= 4
    np.testing.assert_allclose(got[likely], expected[likely], atol=0.5)
