"""The search for the best acquisition stays where all rules are kept, and reaches the edge of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hpo.optimizer import create_optimizer
from hpo.optimizer.ax_generator import AxGenerator
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
    found = AxGenerator().propose(history, 2)
    lrs = [float(suggestion.params["lr"]) for suggestion in found]
    assert 0.005 < max(lrs) <= 0.01
    assert all(history.spec.allows(suggestion.params) for suggestion in found)


@pytest.mark.usefixtures("short_search")
def test_a_rare_band_is_proposed_from_and_guesses_are_completed_within_it() -> None:
    history = _history(BAND)
    generator = AxGenerator()
    for found in (*generator.propose(history, 2), generator.complete(history, {"model.alpha": 8})):
        history.spec.check_params(found.params)
        assert frozenset(found.params.items()) not in history.taken
        assert found.predicted_mean is not None
