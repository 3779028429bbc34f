"""The faster form of a maximum over every neighbourhood is the maximum."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.layers.dense_pool import DenseMaxPool3d

from ..oracles import random_clip
from ..tiny import tiny


@pytest.mark.parametrize("shape", [(2, 5, 4, 6, 7), (1, 16, 1, 3, 3), (1, 1, 2, 1, 1)])
def test_is_the_plain_pool_with_its_choice_among_equals(shape: tuple[int, ...]) -> None:
    # Rounded and cut off at zero, as behind a ReLU: most neighbourhoods have several largest values.
    clip = random_clip(*shape).round().clamp_min(0)
    inputs = clip.clone().requires_grad_(), clip.clone().requires_grad_()
    outputs = DenseMaxPool3d()(inputs[0]), nn.MaxPool3d(3, 1, 1)(inputs[1])
    assert torch.equal(*outputs)
    assert outputs[0].is_contiguous()
    weights = random_clip(*shape, seed=1)
    for output in outputs:
        (output * weights).sum().backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["s3d", "i3d_inception"])
def test_inception_modules_pool_that_way(name: str) -> None:
    pools = [module for module in tiny(name).modules() if isinstance(module, nn.MaxPool3d) and module.stride == 1]
    assert len(pools) == 9
    assert all(isinstance(pool, DenseMaxPool3d) for pool in pools)
