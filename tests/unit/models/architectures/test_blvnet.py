"""bLVNet-TAM: its sizes, and the network computed step by step from its description."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import models
from models.architectures.blvnet import split_pairs

from ..oracles import random_clip, randomise, relative_gap

State = Mapping[str, Tensor]


# Counted on the authors' own network.
@pytest.mark.parametrize(
    ("name", "at_400", "at_101"),
    [("blvnet_tam_50", 25_483_216, 24_870_565), ("blvnet_tam_101", 40_640_208, 40_027_557)],
)
def test_parameter_count(name: str, at_400: int, at_101: int) -> None:
    for classes, expected in ((400, at_400), (101, at_101)):
        with torch.device("meta"):
            model = models.create_model(name, num_classes=classes)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)


def tam(state: State, name: str, images: Tensor, length: int) -> Tensor:
    kernel = torch.stack([state[f"{name}.{which}_se.fc1.weight"].flatten() for which in ("prev", "curr", "next")], 1)
    clips = images.view(-1, length, *images.shape[1:]).transpose(1, 2)
    out = F.conv3d(clips, kernel[:, None, :, None, None], padding=(1, 0, 0), groups=kernel.shape[0])
    return out.relu().transpose(1, 2).flatten(0, 1)


def block(state: State, name: str, x: Tensor, stride: int = 1, *, relu: bool = True, length: int = 0) -> Tensor:
    seen = tam(state, f"{name}.tam", x, length) if length else x
    y = norm(state, f"{name}.bn1", conv(state, f"{name}.conv1", seen)).relu()
    y = norm(state, f"{name}.bn2", conv(state, f"{name}.conv2", y, stride)).relu()
    y = norm(state, f"{name}.bn3", conv(state, f"{name}.conv3", y))
    shortcut = x
    index = 0
    if stride == 2:
        shortcut, index = F.avg_pool2d(seen, 3, 2, 1), 1
    if f"{name}.downsample.{index}.weight" in state:
        shortcut = shortcut if stride == 2 else seen
        shortcut = norm(state, f"{name}.downsample.{index + 1}", conv(state, f"{name}.downsample.{index}", shortcut))
    return (y + shortcut).relu() if relu else y + shortcut


def described(state: State, clip: Tensor) -> Tensor:
    """Return logits of the 50-layer network of alpha 2 and beta 4, in evaluation mode."""
    length = clip.shape[2]
    x = clip.transpose(1, 2).flatten(0, 1)
    x = norm(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)).relu()
    x = tam(state, "tam", x, length)
    # The first of every pair of frames goes to the little branch, the second to the big one.
    big = norm(state, "bn_b0", conv(state, "b_conv0", x[1::2], 2))
    little = norm(state, "bn_l0", conv(state, "l_conv0", x[0::2])).relu()
    little = norm(state, "bn_l1", conv(state, "l_conv1", little, 2)).relu()
    x = (big + norm(state, "bn_l2", conv(state, "l_conv2", little))).relu()
    x = norm(state, "bn_bl_init", conv(state, "bl_init", x)).relu()
    for stage, (blocks, stride) in enumerate([(2, 2), (3, 2), (5, 1)], 1):
        name = f"layer{stage}"
        both = tam(state, f"{name}.tam", torch.stack((x, x), 1).flatten(0, 1), length)
        big, little = both[1::2], block(state, f"{name}.little.0", both[0::2])
        for number in range(blocks):
            big = block(state, f"{name}.big.{number}", big, 2 if number == 0 else 1, relu=number < blocks - 1)
        little = norm(state, f"{name}.little_e.1", conv(state, f"{name}.little_e.0", little))
        merged = (F.interpolate(big, little.shape[2:], mode="nearest") + little).relu()
        x = block(state, f"{name}.fusion.0", merged, stride)
    for number in range(3):
        x = block(state, f"layer4.{number}", x, 2 if number == 0 else 1, length=length // 2)
    logits = F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    return logits.view(-1, length // 2, logits.shape[1]).mean(1)


@pytest.mark.parametrize("size", [32, 37])
def test_the_network_equals_its_step_by_step_description(size: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create_model("blvnet_tam_50", num_classes=5, width=16, blend_init="random").double().eval()
    randomise(model, 0)
    clip = random_clip(2, 3, 6, size, size)
    with torch.no_grad():
        assert relative_gap(model(clip), described(model.state_dict(), clip)) < 1e-10


def test_pairs_are_split() -> None:
    little, big = split_pairs(torch.arange(8))
    assert little.tolist() == [0, 2, 4, 6]
    assert big.tolist() == [1, 3, 5, 7]


def test_an_odd_number_of_frames_is_refused() -> None:
    model = models.create_model("blvnet_tam_50", num_classes=2, width=8)
    with pytest.raises(models.InvalidClipError, match="group = 2 does not divide frames = 5"):
        model(torch.randn(1, 3, 5, 32, 32))
    with pytest.raises(models.InvalidModelError, match="alpha = 4 does not divide width = 10"):
        models.create_model("blvnet_tam_50", num_classes=2, width=10, alpha=4)
