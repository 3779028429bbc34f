"""The faster form of a convolution over frames is the convolution."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.layers.temporal_conv import TemporalConv3d

from ..oracles import random_clip, relative_gap
from ..tiny import tiny


@pytest.mark.parametrize("frames", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize(("groups", "bias"), [(1, False), (1, True), (6, False)])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_is_the_plain_convolution(frames: int, stride: int, groups: int, bias: bool, length: int) -> None:
    ours = TemporalConv3d(6, 12, frames, stride=stride, groups=groups, bias=bias).double()
    theirs = nn.Conv3d(6, 12, (frames, 1, 1), (stride, 1, 1), (frames // 2, 0, 0), groups=groups, bias=bias).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    clip = random_clip(2, 6, length, 3, 4)
    inputs = clip.clone().requires_grad_(), clip.clone().requires_grad_()
    outputs = ours(inputs[0]), theirs(inputs[1])
    assert relative_gap(*outputs) < 1e-12
    for output in outputs:
        output.square().sum().backward()
    gradients = [(inputs[0].grad, inputs[1].grad), *zip(_gradients(ours), _gradients(theirs), strict=True)]
    for mine, other in gradients:
        assert mine is not None
        assert other is not None
        assert relative_gap(mine, other) < 1e-12


def _gradients(conv: nn.Module) -> list[torch.Tensor | None]:
    return [parameter.grad for parameter in conv.parameters()]


def test_other_memory_formats_give_the_same() -> None:
    conv = TemporalConv3d(8, 8, 3)
    clip = random_clip(2, 8, 4, 5, 6).float()
    last = copy.deepcopy(conv).to(memory_format=torch.channels_last_3d)(
        clip.contiguous(memory_format=torch.channels_last_3d)
    )
    torch.testing.assert_close(last, conv(clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["slowfast_r18", "slowfast_r50_4x16", "r2plus1d_18", "r2plus1d_r50", "s3d", "x3d_s"])
def test_every_convolution_over_frames_has_the_faster_form(name: str) -> None:
    convolutions = [module for module in tiny(name).modules() if isinstance(module, nn.Conv3d)]
    over_frames = [conv for conv in convolutions if conv.kernel_size[0] > 1 and conv.kernel_size[1:] == (1, 1)]
    assert over_frames
    assert all(isinstance(conv, TemporalConv3d) for conv in over_frames)
