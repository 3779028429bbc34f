"""The start-up begins at the centre of what a person believes, and then draws from it and from Sobol by turns."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, truncnorm

from hpo.optimizer import create_optimizer
from hpo.optimizer.prior import believed, prior_generator
from hpo.optimizer.sobol import sobol_points
from hpo.spec import StudySpec

from ..records import spec_with

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True, "prior": {"center": 0.01, "confidence": "high"}},
    "dropout": {"type": "float", "low": 0.0, "high": 0.8},
    "model": {"type": "categorical", "choices": ["a", "b", "c"], "prior": {"center": "b"}},
    "clip.frames": {"type": "ordinal", "choices": [4, 8, 16, 32], "prior": {"center": 8, "confidence": "low"}},
    "batch_size": {"type": "int", "low": 1, "high": 64, "log": True, "prior": {"center": 8, "confidence": "high"}},
    "model.x": {"type": "int", "low": 0, "high": 9, "when": {"model": ["b"]}, "prior": {"center": 7}},
}


@pytest.fixture
def spec() -> StudySpec:
    """Return a spec with a prior on all parameters except one."""
    return spec_with(space=SPACE, budget={"trials": 600})


def _draws(spec: StudySpec, count: int = 1024) -> list[dict[str, Any]]:
    """Return the configurations of the start-up that are drawn from the belief."""
    points = sobol_points(len(spec.space), 0, (2 * count).bit_length())
    return [dict(believed(spec, place, points[place].tolist())) for place in range(1, 2 * count, 2)]


def test_the_first_trial_is_the_centre_and_every_other_one_is_plain_sobol(spec: StudySpec) -> None:
    plain = spec_with(space={key: {**value, "prior": None} for key, value in SPACE.items()}, budget={"trials": 600})
    found = [suggestion.params for suggestion in create_optimizer(spec).ask(5)]
    sobol = [suggestion.params for suggestion in create_optimizer(plain).ask(5)]
    centre = {"lr": 0.01, "model": "b", "clip.frames": 8, "batch_size": 8, "model.x": 7}
    assert found[0] == {**centre, "dropout": sobol[0]["dropout"]}
    assert [found[place] == sobol[place] for place in range(5)] == [False, False, True, False, True]
    for params in found:
        spec.check_params(params)


def test_draws_follow_the_truncated_normal_of_the_coordinate(spec: StudySpec) -> None:
    coordinates = [math.log10(params["lr"] / 1e-4) / 4 for params in _draws(spec)]
    low, high = (0 - 0.5) / 0.125, (1 - 0.5) / 0.125
    assert kstest(coordinates, truncnorm(low, high, 0.5, 0.125).cdf).pvalue > 0.01


def test_draws_of_choices_follow_their_weights(spec: StudySpec) -> None:
    draws = _draws(spec)
    counts = Counter(params["model"] for params in draws)
    assert counts["b"] / len(draws) == pytest.approx(4 / 6, abs=0.01)
    assert counts["a"] / len(draws) == pytest.approx(1 / 6, abs=0.01)
    frames = Counter(params["clip.frames"] for params in draws)
    assert frames[8] > frames[16] > frames[32]
    assert np.median([params["batch_size"] for params in draws]) == pytest.approx(8, abs=1)
    assert np.median([params["model.x"] for params in draws if "model.x" in params]) == pytest.approx(6.5, abs=0.5)


def test_tried_configurations_are_skipped(spec: StudySpec) -> None:
    optimizer = create_optimizer(spec)
    (first, *rest) = optimizer.ask(4)
    optimizer.register(0, first)
    assert [suggestion.params for suggestion in optimizer.ask(3)] == [suggestion.params for suggestion in rest]
    assert {suggestion.generator for suggestion in rest} == {prior_generator().name}
