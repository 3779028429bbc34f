"""Completion maximises the acquisition over the parameters that a guess leaves open and keeps the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hpo.optimizer import GeneratorError, Optimizer
from hpo.optimizer.ax_generator import AxGenerator
from hpo.optimizer.history import History
from hpo.trial import ENQUEUED, Params, TrialState

from ...records import record_of, spec_with

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.8},
    "model": {"type": "categorical", "choices": ["a", "b"]},
    "model.x": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": ["b"]}},
}
SMALL: dict[str, Any] = {
    "batch_size": {"type": "ordinal", "choices": [1, 2, 4, 8]},
    "model": {"type": "categorical", "choices": ["a", "b"]},
}


def _history(space: Mapping[str, Any], count: int, guesses: list[Params] | None = None) -> History:
    spec = spec_with(space=space, optimizer={"enqueue": guesses or []})
    rng = np.random.default_rng(0)
    suggestions = Optimizer(spec_with(space=space), AxGenerator).quick(count)
    records = [
        record_of(id, TrialState.COMPLETED, params=s.params, metrics={"val_top1": _value(s.params, rng)})
        for id, s in enumerate(suggestions)
    ]
    return History(spec, records)


def _value(params: Params, rng: np.random.Generator) -> float:
    """Return a value that is highest at a dropout of 0.3 and a batch of 4."""
    gap = abs(float(params.get("dropout", 0.3)) - 0.3) + abs(float(params.get("batch_size", 4)) - 4) / 4
    return -gap + 1e-3 * float(rng.normal())


@pytest.mark.parametrize("guess", [{"lr": 0.0123}, {"model": "b", "model.x": 0.77}, {"model": "b"}])
def test_missing_values_are_those_of_the_best_acquisition(guess: Params) -> None:
    history = _history(SPACE, 16)
    found = AxGenerator().complete(history, guess)
    history.spec.check_params(found.params)
    assert guess.items() <= found.params.items()
    assert float(found.params["dropout"]) == pytest.approx(0.3, abs=0.08)
    assert found.predicted_mean is not None


def test_a_small_space_is_enumerated_and_only_new_configurations_are_returned() -> None:
    history, full = _history(SMALL, 5), _history(SMALL, 8)
    for model in ("a", "b"):
        found = AxGenerator().complete(history, {"model": model})
        assert found.params["model"] == model
        assert frozenset(found.params.items()) in full.taken - history.taken
    with pytest.raises(GeneratorError, match="every configuration of this space has been tried"):
        AxGenerator().complete(full, {"model": "a"})


def test_the_model_completes_a_guess_once_there_is_one() -> None:
    history = _history(SPACE, 16, [{"lr": 0.0123}, {"lr": 0.01, "dropout": 0.5, "model": "a"}])
    optimizer = Optimizer(history.spec, AxGenerator)
    early = optimizer.ask()[0]
    optimizer.replay(history.records)
    partly, whole = optimizer.ask(2)
    assert (early.predicted_mean is None, partly.predicted_mean is None, whole.predicted_mean) == (True, False, None)
    assert [early.generator, partly.generator, whole.generator] == [ENQUEUED] * 3
    assert whole.params == {"lr": 0.01, "dropout": 0.5, "model": "a"}
    assert optimizer.quick()[0].predicted_mean is None


def test_a_guess_is_completed_without_a_model_if_the_model_finds_no_new_configuration() -> None:
    history = _history(SMALL, 8, [{"model": "a"}])
    optimizer = Optimizer(history.spec, AxGenerator)
    optimizer.replay(history.records)
    (suggestion,) = optimizer.ask()
    assert (suggestion.generator, suggestion.params["model"]) == (ENQUEUED, "a")
