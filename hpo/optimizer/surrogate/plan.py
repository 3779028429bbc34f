"""The models of one history, and the search for configurations with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.utils.multi_objective.pareto import is_non_dominated

from ...arrays import Array
from ...spec import StudySpec
from ...trial import Params, Suggestion
from ..bayes.curves import Outcome, outcomes
from ..bayes.earlier import promising, space_of, with_earlier
from ..bayes.models import Data, Metric, feasibility, model
from ..bayes.prior import Belief, power
from ..bayes.space import Space
from ..bayes.validation import predictions_without
from ..cost import expected_cost
from ..cube import ParamsKey, key_of, size
from ..generator import GeneratorError
from ..history import PENDING, History
from ..prior import has_prior
from ..sobol import sobol_points
from .acquisition import Adjusted, acquisition
from .candidates import around, every_row
from .embedding import Embedding
from .ensemble import EnsembleGP
from .search import best_of, search
from .terms import Term, cost_term, rules_term, weight_term

_INCUMBENTS_PER_OBJECTIVE = 16
_MAX_CENTRES = 8
"""How many of the best configurations of this study the search looks around."""
_VIOLATION_STEP = 0.2
"""Violations of the constraints that differ by less than this share of the spread of outcomes count as the same."""
_ENUMERATE_UP_TO_ROWS = 2000
"""Finite spaces up to this size are enumerated."""
_SECOND_VIEW_EVERY = 3
"""One in this many proposals uses the second view of the outcomes (`bayes.models.model`), so that a search that is
stuck under one transform of them can get away."""

_DRAWN_EXPONENT = 8
"""2 to this power Sobol points, and perturbations, are what draws choose from."""
_INFEASIBLE = -1e6
"""Below what any row is worth that keeps the constraints."""


def is_used_up(history: History) -> bool:
    """Return whether a small finite space has no configuration left that keeps the rules and has not been tried."""
    count = size(history.spec, limit=_ENUMERATE_UP_TO_ROWS)
    return count is not None and count <= sum(history.spec.allows(dict(key)) for key in history.taken)


class Plan:
    """The models of one history. It proposes rows of `space`, one after the other."""

    def __init__(self, history: History) -> None:
        """Fit the models.

        Raises:
            GeneratorError: no parameter varies, or there is no outcome yet.
            numpy.linalg.LinAlgError: a covariance matrix cannot be factored.
        """
        self.space = space_of(history)
        if not self.space.axes:
            raise GeneratorError("no parameter of this space has more than one value")
        count = size(history.spec, limit=_ENUMERATE_UP_TO_ROWS)
        self.outcomes: Sequence[Outcome] = outcomes(history)
        if not self.outcomes:
            raise GeneratorError("no trial has an outcome yet")
        self.spec: StudySpec = history.spec
        self._taken: set[ParamsKey] = set(history.taken)
        self._everything = None if count is None else every_row(self.space)
        rows = np.stack([self.space.encode(outcome.params) for outcome in self.outcomes])
        points = self.space.embed(rows)
        known = Data(points=points, columns=self.space.columns, outcomes=self.outcomes)
        data = with_earlier(history, self.space, known)
        second_view = len(history.records) % _SECOND_VIEW_EVERY == _SECOND_VIEW_EVERY - 1
        self.metrics: Sequence[Metric] = model(history.spec, data, second_view=second_view)
        self._data = data
        self._embedding = Embedding(self.space)
        self._models = [
            EnsembleGP(self._embedding, data.points, *_targets(metric, data.outcomes), metric.modelled.process.hypers)
            for metric in self.metrics
        ]
        seen = [seen for seen in history.observations if seen.metrics and not seen.is_evidence]
        self._is_imputed = [one.imputed for one in seen]
        self._pending = [self.space.encode(seen.params) for seen in history.observations if seen.state in PENDING]
        self._incumbents = _incumbents(self.metrics, points, rows)
        self._centres = np.concatenate([self._incumbents[:_MAX_CENTRES], promising(history, self.space)])
        self._seed = (history.spec.optimizer.seed, len(history.records))
        self._terms = _terms(history, self.space)
        self._weighs = has_prior(history.spec) or history.spec.budget.gpu_hours is not None

    @property
    def has_one_objective(self) -> bool:
        """Whether the study has one objective."""
        return len(self.spec.objectives) == 1

    @property
    def measured(self) -> list[Outcome]:
        """The outcomes of trials of this study that did not fail."""
        return [outcome for outcome, is_imputed in zip(self.outcomes, self._is_imputed, strict=True) if not is_imputed]

    def unseen(self, name: str) -> tuple[Array, Array]:
        """Return what is predicted of each measured outcome of this study without it, in the unit of the metric.

        They are means and standard deviations, (outcomes,) each.
        """
        rows = np.flatnonzero(np.logical_not(self._is_imputed))
        return predictions_without(self.spec, self._data, rows, name, seed=self.spec.optimizer.seed)

    def values(self, name: str) -> Array:
        """Return the measured outcomes of this study in a metric, (outcomes,)."""
        return np.array([outcome.values[name] for outcome in self.measured])

    def ensemble(self, metric: Metric, rows: Array, targets: Array, noise: Array) -> EnsembleGP:
        """Return the model of a metric conditioned on other outcomes of this study than the plan knows.

        `targets` (n,) are those of the metric as it is (not negated) at `rows` (n, dimensions), and `noise` (n,) are
        known variances. Failed trials and trials of earlier studies stay as the plan has them.
        """
        kept = np.array([*self._is_imputed, *[True] * (len(self._data.outcomes) - len(self.outcomes))])
        extra, more = _targets(metric, self._data.outcomes)
        return EnsembleGP(
            self._embedding,
            np.concatenate([self._data.points[kept], self.space.embed(rows)]),
            np.concatenate([extra[kept], metric.sign * targets]),
            np.concatenate([more[kept], noise]),
            metric.modelled.process.hypers,
            sign=metric.sign,
        )

    def acquisition(self) -> AcquisitionFunction:
        """Return the acquisition of one more trial beside the pending ones and those that were proposed."""
        rows = np.array(self._pending).reshape(-1, self.space.dimensions)
        found = acquisition(self.metrics, self._models, self._incumbents, rows, self._draw(len(rows)))
        for term in self._terms:
            found = Adjusted(found, term)
        return found

    def best(self, found: AcquisitionFunction, fixed: Mapping[int, float]) -> Array | None:
        """Return the new row at which the acquisition is best; None if the search found no new one.

        `fixed` are coordinates by axis that the row must have. The row counts as pending from then on.
        """
        if self._everything is None:
            seed = self._draw(len(self._pending))
            row = search(self.space, found, self._centres, self._is_new, fixed=fixed, seed=seed)
        else:
            kept = np.all([self._everything[:, at] == u for at, u in fixed.items()], axis=0) if fixed else slice(None)
            left = [row for row in self._everything[kept] if self._is_new(row)]
            row = best_of(found, np.array(left)) if left else None
        if row is not None:
            self._taken.add(key_of(self.space.decode(row)))
            self._pending.append(row)
        return row

    def drawn(self, count: int) -> list[Array]:
        """Return up to `count` new rows, each the best in functions drawn from the models; they count as pending.

        No search is needed for them (Thompson sampling; Kandasamy et al., Parallelised Bayesian Optimisation via
        Thompson Sampling, AISTATS 2018). With several objectives each draw weighs them anew. None are drawn where
        beliefs or costs weigh configurations, which a draw does not know.
        """
        if self._weighs:
            return []
        rng = np.random.default_rng(self._draw(len(self._pending)))
        rows = self._to_draw_from(rng)
        if not len(rows):
            return []
        points = self.space.embed(rows)
        draws = np.stack([metric.modelled.process.draw(points, count, rng) for metric in self.metrics])
        chance = np.exp(np.minimum(sum((term(torch.as_tensor(rows)).numpy() for term in self._terms), np.zeros(1)), 0))
        left = np.ones(len(rows), dtype=bool)
        found: list[Array] = []
        for values in self._worth(draws, rng):
            may_run = left & (rng.random(len(rows)) < chance)
            if may_run.any():
                place = int(np.argmax(np.where(may_run, values, -np.inf)))
                left[place] = False
                self._taken.add(key_of(self.space.decode(rows[place])))
                self._pending.append(rows[place])
                found.append(rows[place])
        return found

    def _to_draw_from(self, rng: np.random.Generator) -> Array:
        """Return new rows all over the space, and around the best and the last proposals."""
        if self._everything is None:
            cloud = self.space.from_unit(sobol_points(self.space.dimensions, int(rng.integers(2**31)), _DRAWN_EXPONENT))
            centres = np.concatenate([np.array(self._pending[-1:]).reshape(-1, self.space.dimensions), self._centres])
            rows = self.space.with_allowed(np.concatenate([cloud, around(self.space, centres, rng)]))
        else:
            rows = self._everything
        by_key = {key_of(self.space.decode(row)): row for row in rows if self._is_new(row)}
        return np.array(list(by_key.values()), dtype=float).reshape(-1, self.space.dimensions)

    def _worth(self, draws: Array, rng: np.random.Generator) -> Array:
        """Return what each row is worth in each draw (count, rows), of `draws` (metrics, count, rows)."""
        is_objective = np.array([metric.modelled.is_objective for metric in self.metrics])
        shares = rng.dirichlet(np.ones(int(is_objective.sum())), size=draws.shape[1])
        values = np.einsum("ck,kcr->cr", shares, draws[is_objective])
        bounds = np.array([metric.modelled.threshold for metric in self.metrics])
        short = np.maximum(bounds[:, None, None] - draws, 0.0).sum(axis=0)
        return np.asarray(np.where(short > 0, _INFEASIBLE - short, values))

    def suggestion(self, params: Params, name: str) -> Suggestion:
        """Return a configuration with the predictions of the models."""
        point = self.space.embed(self.space.encode(params)[None])
        mean, sd = self.metrics[0].predict(point)
        chance = feasibility(self.metrics, point) if self.spec.constraints else np.array([math.nan])
        return Suggestion(
            params=params,
            generator=name,
            predicted_mean=_finite_or_none(mean),
            predicted_sd=_finite_or_none(sd),
            predicted_feasibility=_finite_or_none(chance),
        )

    @property
    def seed(self) -> int:
        """The seed of the random numbers of the search."""
        return self._draw(0)

    def _draw(self, pending: int) -> int:
        return int(np.random.SeedSequence([*self._seed, pending]).generate_state(1)[0] // 2)

    def _is_new(self, row: Array) -> bool:
        return key_of(self.space.decode(row)) not in self._taken and bool(self.space.allows(row[None])[0])


def _finite_or_none(found: Array) -> float | None:
    """Return the single value of an array, or None if it is not finite: the store accepts finite numbers only."""
    return float(found[0]) if math.isfinite(found[0]) else None


def _incumbents(metrics: Sequence[Metric], points: Array, rows: Array) -> Array:
    """Return the rows that may be the best ones, best first: feasible before infeasible, then by the models' means."""
    means = [metric.modelled.process.mean(points) for metric in metrics]
    values = np.stack(
        [mean for mean, metric in zip(means, metrics, strict=True) if metric.modelled.is_objective], axis=1
    )
    short = np.zeros(len(rows))
    for mean, metric in zip(means, metrics, strict=True):
        short += np.maximum(metric.modelled.threshold - mean, 0.0)
    behind = np.zeros(len(rows), dtype=bool)
    if values.shape[1] > 1:
        behind = ~is_non_dominated(torch.as_tensor(values), deduplicate=False).numpy()
    order = np.lexsort((-values.sum(axis=1), behind, np.floor(short / _VIOLATION_STEP)))
    return np.asarray(rows[order[: _INCUMBENTS_PER_OBJECTIVE * values.shape[1]]])


def _targets(metric: Metric, outcomes: Sequence[Outcome]) -> tuple[Array, Array]:
    """Return targets (n,) and known noise variances (n,) of outcomes."""
    gains = metric.sign * np.array([outcome.values[metric.name] for outcome in outcomes])
    sds = np.array([outcome.sds[metric.name] for outcome in outcomes])
    return metric.transform.forward(gains), (sds * metric.transform.slope(gains)) ** 2


def _terms(history: History, space: Space) -> list[Term]:
    found: list[Term] = [rules_term(space)] if history.spec.rulebook.rules else []
    if has_prior(history.spec):
        found.append(weight_term(Belief(space=space, power=power(history.spec, len(history.records)))))
    if history.runnability is not None:
        found.append(weight_term(history.runnability.weights))
    if history.spec.budget.gpu_hours is not None:
        cost = expected_cost(history)
        if cost is not None:
            found.append(cost_term(space, cost))
    return found
