"""The differentiable embedding against the one in numpy."""

from __future__ import annotations

import numpy as np
import torch

from hpo.optimizer.bayes.earlier import StudySpace
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.surrogate.embedding import Embedding

from ...records import spec_with

SPEC = spec_with(
    space={
        "model": {"type": "categorical", "choices": ["a", "b", "c"]},
        "model.depth": {"type": "float", "low": 1.0, "high": 3.0, "when": {"model": ["a", "b"]}},
        "model.kind": {"type": "categorical", "choices": ["x", "y"], "when": {"model": ["b"]}},
        "model.size": {"type": "int", "low": 1, "high": 9, "log": True, "when": {"model.kind": ["y"]}},
        "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "clip.stride": {"type": "ordinal", "choices": [1, 2, 4]},
    }
)
ROWS = Space(SPEC).from_unit(np.random.default_rng(5).random((40, 6)))


def test_it_is_the_embedding_of_the_space() -> None:
    for space in (Space(SPEC), StudySpace(SPEC, ["earlier", "other"])):
        np.testing.assert_allclose(Embedding(space)(torch.as_tensor(ROWS)).numpy(), space.embed(ROWS))


def test_columns_name_the_parameter_that_they_belong_to() -> None:
    assert Embedding(StudySpace(SPEC, ["earlier"])).columns.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, -1, 6, 6]


def test_the_slope_is_that_of_every_active_number() -> None:
    """Against differences of the embedding in numpy; a step away from where a parent switches its children."""
    space, weights = Space(SPEC), np.linspace(0.5, 2.0, 12)
    rows = torch.as_tensor(ROWS).requires_grad_()
    (Embedding(space)(rows) @ torch.as_tensor(weights)).sum().backward()
    assert rows.grad is not None
    for place, axis in enumerate(space.axes):
        step = np.zeros(space.dimensions)
        step[place] = 0.0 if axis.is_categorical else 1e-6
        change = (space.embed(ROWS + step) - space.embed(ROWS - step)) @ weights / 2e-6
        np.testing.assert_allclose(rows.grad[:, place].numpy(), change, atol=1e-6)
