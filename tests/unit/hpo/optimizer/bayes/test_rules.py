"""The search for the best acquisition stays where all rules are kept, and reaches the edge of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hpo.optimizer import create_optimizer
from hpo.optimizer.bayes.acquisition import BROKEN, Acquisition, Modelled
from hpo.optimizer.bayes.generator import BayesGenerator
from hpo.optimizer.bayes.gp import Hyperparameters, Process
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.history import History
from hpo.trial import Params, TrialState

from ...records import record_of, spec_with

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
    "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "model.alpha": {"type": "ordinal", "choices": [2, 4, 8]},
}
BAND = ["lr * 10 >= weight_decay * 1000", "lr * 10 <= weight_decay * 1001"]
"""One in several thousand points keeps both."""


def _history(rules: list[str], count: int = 8) -> History:
    """Return a study in which more lr is better, above all with a small alpha."""
    spec = spec_with(space=SPACE, rules=rules)
    records = [
        record_of(id, TrialState.COMPLETED, params=found.params, metrics={"val_top1": _value(found.params)})
        for id, found in enumerate(create_optimizer(spec).quick(count))
    ]
    return History(spec, records)


def _value(params: Params) -> float:
    return 0.8 + 0.1 * math.log10(float(params["lr"])) - 0.01 * float(params["model.alpha"])


def test_proposals_go_up_to_the_rule_and_no_further() -> None:
    history = _history(["lr <= 0.01"])
    found = BayesGenerator().propose(history, 2)
    lrs = [float(suggestion.params["lr"]) for suggestion in found]
    assert 0.005 < max(lrs) <= 0.01
    assert all(history.spec.allows(suggestion.params) for suggestion in found)


def test_a_rare_band_is_proposed_from_and_guesses_are_completed_within_it() -> None:
    history = _history(BAND)
    generator = BayesGenerator()
    for found in (*generator.propose(history, 2), generator.complete(history, {"model.alpha": 8})):
        history.spec.check_params(found.params)
        assert frozenset(found.params.items()) not in history.taken
        assert found.predicted_mean is not None


def test_the_acquisition_is_broken_without_a_slope_where_a_rule_is_and_unchanged_elsewhere() -> None:
    rows = np.random.default_rng(0).random((12, 3))
    rows = np.column_stack([rows[:, :2], np.floor(rows[:, 2] * 3) / 2])
    found = {}
    for rules in ([], ["lr <= 0.01 and model.alpha <= 4"]):
        spec = spec_with(space=SPACE, rules=rules)
        space = Space(spec)
        hyper = Hyperparameters(lengthscales=np.array([0.5, 0.5, 0.5]), outputscale=1.0, noise=0.01, mean=0.0)
        process = Process(space.embed(rows[:5]), np.arange(5.0), np.zeros(5), space.columns, [hyper])
        modelled = Modelled(process=process, is_objective=True, threshold=-math.inf)
        acquisition = Acquisition(space, [modelled], rows[:5], np.zeros((1, 1, 2, 5)))
        found[len(rules)] = acquisition.values(rows), *acquisition(rows)
        kept = np.array([spec.allows(space.decode(row)) for row in rows])
        assert np.array_equal(space.allows(rows), kept)
    assert 0 < kept.sum() < len(rows)
    for free, ruled in zip(found[0], found[1], strict=True):
        assert np.allclose(ruled[kept], free[kept])
        assert np.all(ruled[~kept] == (BROKEN if ruled.ndim == 1 else 0.0))


@pytest.mark.parametrize("given", [{}, {"model.alpha": 8}])
def test_rows_that_break_a_rule_get_allowed_values_and_the_others_stay(given: Params) -> None:
    rules = ["lr <= weight_decay * 5", "model.alpha <= 4 or lr <= 0.001"]
    space = Space(spec_with(space=SPACE, rules=rules))
    rows = np.random.default_rng(1).random((40, 3))
    rows[:, 2] = 1.0 if given else np.floor(rows[:, 2] * 3) / 2
    before = space.allows(rows)
    moved = space.with_allowed(rows, given)
    assert 0 < before.sum() < 40
    assert space.allows(moved).all()
    assert np.array_equal(moved[before], rows[before])
    assert given.items() <= space.decode(moved[0]).items()
    assert len(np.unique(moved, axis=0)) == 40
