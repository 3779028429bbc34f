"""Slow, C2D and the non-local I3D: pytorchvideo's to rounding, and inflated from image networks."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet

import models

from ..oracles import assert_same_network, pytorchvideo, random_clip, randomise, relative_gap

HUB: dict[str, dict[str, Any]] = {
    "slow_r50": {"stem_conv_kernel_size": (1, 7, 7)},
    "c2d_r50": {
        "stem_conv_kernel_size": (1, 7, 7),
        "stage1_pool": nn.MaxPool3d,
        "stage_conv_a_kernel_size": ((1, 1, 1),) * 4,
    },
    "i3d_r50": {
        "stem_conv_kernel_size": (5, 7, 7),
        "stage1_pool": nn.MaxPool3d,
        "stage_conv_a_kernel_size": (
            (3, 1, 1),
            [(3, 1, 1), (1, 1, 1)],
            [(3, 1, 1), (1, 1, 1)],
            [(1, 1, 1), (3, 1, 1)],
        ),
    },
}
HUB["i3d_r101"] = {**HUB["i3d_r50"], "model_depth": 101}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("slow_r50", {}),
        ("c2d_r50", {}),
        ("i3d_r50", {}),
        ("i3d_r50", {"stem_temporal_stride": 2}),
        ("i3d_r101", {}),
    ],
)
def test_same_network_as_pytorchvideo(name: str, options: dict[str, Any]) -> None:
    ours = models.create_model(name, num_classes=5, dropout=0.0, width=16, **options)
    randomise(ours, seed=3)
    stride = options.get("stem_temporal_stride", 1)
    frames = 8 // stride // (1 if name == "slow_r50" else 2)
    theirs = pytorchvideo("resnet").create_resnet(
        **{"model_depth": 50, **HUB[name]},
        model_num_class=5,
        dropout_rate=0.0,
        stem_dim_out=16,
        stem_conv_stride=(stride, 2, 2),
        head_pool_kernel_size=(frames, 2, 2),
    )
    names = {key: their_name(key, pooled=name != "slow_r50") for key in ours.state_dict()}
    theirs.load_state_dict({names[key]: tensor for key, tensor in ours.state_dict().items()}, strict=True)
    ours.double()
    theirs.double()
    clip = random_clip(2, 3, 8, 48, 48)
    assert_same_network(ours, theirs, clip, lambda: clip, names)


def their_name(ours: str, *, pooled: bool) -> str:
    """Return pytorchvideo's name for one of our state-dict names; the pool is one of their blocks."""
    if ours.startswith("head."):
        return ours.replace("head", f"blocks.{6 if pooled else 5}.proj")
    if ours.startswith("path.stem."):
        return ours.replace("path.stem", "blocks.0")
    match = re.fullmatch(r"path\.stages\.(\d)\.(\d+)\.(branch|shortcut)\.(.+)", ours)
    assert match is not None, ours
    stage, block, part, rest = match.groups()
    number = int(stage) + 1 + (1 if pooled and int(stage) else 0)
    if part == "branch":
        rest = f"branch2.{rest}"
    else:
        rest = rest.replace("0.", "branch1_conv.", 1) if rest[0] == "0" else f"branch1_norm.{rest[2:]}"
    return f"blocks.{number}.res_blocks.{block}.{rest}"


@pytest.mark.parametrize("name", ["slow_r50", "c2d_r50", "i3d_r50"])
def test_inflated_network_sees_the_image_in_a_clip_that_stands_still(name: str) -> None:
    image_net = resnet.ResNet(resnet.Bottleneck, [3, 4, 6, 3], num_classes=3)
    randomise(image_net, seed=4)
    image_net.double().eval()
    video_net = models.create_model(name, num_classes=3).double().eval()
    report = models.load_inflated(video_net, image_net.state_dict())
    assert report.reset == ("head.bias", "head.weight")

    image = random_clip(1, 3, 1, 32, 32)
    maps: dict[str, Tensor] = {}
    image_net.layer4.register_forward_hook(lambda *call: maps.update(image=call[2]))
    video_net.get_submodule("path.stages.3").register_forward_hook(lambda *call: maps.update(video=call[2]))
    with torch.no_grad():
        image_net(image[:, :, 0])
        # Zero padding in time reaches 2 + 3 frames from either end, then 2 + 3 + 1 pairs: 9 of 20.
        video_net(image.expand(-1, -1, 40, -1, -1))
    middle = maps["video"].shape[2] // 2
    assert relative_gap(maps["video"][:, :, middle], maps["image"]) < 1e-10
    if name == "i3d_r50":
        assert relative_gap(maps["video"][:, :, 0], maps["image"]) > 1e-3
