"""Slow, C2D and the non-local I3D: pytorchvideo's to rounding, and inflated from image networks."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet

import models
from models.layers.non_local import NonLocal3d

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
        ("i3d_r50", {"stem_temporal_stride": 2, "stem_pool_temporal_stride": 2}),
        ("i3d_r50", {"non_local": "softmax"}),
        ("slow_r50", {"non_local": "dot_product"}),
        ("i3d_r101", {}),
    ],
)
def test_same_network_as_pytorchvideo(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)  # the convolutions are drawn by their own initialisation
    ours = models.create_model(name, num_classes=5, dropout=0.0, width=16, **options)
    randomise(ours, seed=3)
    for module in ours.modules():
        if isinstance(module, NonLocal3d):
            # Each block adds products of three maps: five of them in a row would grow beyond all digits. Under a
            # softmax they do not, and with smaller ones the gradients of theta and phi would be rounding alone.
            std = 1e-2 if options["non_local"] == "softmax" else 1e-3
            nn.init.normal_(module.theta.weight, std=std, generator=torch.Generator().manual_seed(1))
    stride = options.get("stem_temporal_stride", 1)
    pool_stride = options.get("stem_pool_temporal_stride", 1)
    frames = 8 // stride // pool_stride // (1 if name == "slow_r50" else 2)
    theirs = pytorchvideo("resnet").create_resnet(
        **{"model_depth": 50, **HUB[name]},
        model_num_class=5,
        dropout_rate=0.0,
        stem_dim_out=16,
        stem_conv_stride=(stride, 2, 2),
        stem_pool_stride=(pool_stride, 2, 2),
        head_pool_kernel_size=(frames, 2, 2),
    )
    pooled = name != "slow_r50"
    if "non_local" in options:
        add_non_local(theirs, options["non_local"], pooled=pooled)
    names = {key: their_name(key, pooled=pooled, wrapped="non_local" in options) for key in ours.state_dict()}
    theirs.load_state_dict({names[key]: tensor for key, tensor in ours.state_dict().items()}, strict=True)
    ours.double()
    theirs.double()
    clip = random_clip(2, 3, 8, 48, 48)
    # Norms take away most of what is added to all positions, a softmax what is added to all products of a position.
    little = tuple(f".nl.{name}.bias" for name in ("g", "norm", "out", "phi"))
    assert_same_network(ours, theirs, clip, lambda: clip, names, little_effect=little)


NON_LOCAL_AFTER = ((1, 1), (1, 3), (2, 1), (2, 3), (2, 5))
"""Stages, from 0, and blocks in PySlowFast's configurations."""


def add_non_local(network: nn.Module, kind: str, *, pooled: bool) -> None:
    """Put pytorchvideo's non-local blocks where PySlowFast's configurations have them."""
    library = importlib.import_module("pytorchvideo.layers.nonlocal_net")
    for stage, block in NON_LOCAL_AFTER:
        name = f"blocks.{stage + 1 + pooled}.res_blocks.{block}"
        channels = 16 * 2**stage * 4
        attention = library.create_nonlocal(
            dim_in=channels, dim_inner=channels // 2, pool_size=(1, 2, 2), instantiation=kind
        )
        network.set_submodule(name, nn.Sequential(network.get_submodule(name), attention))


def their_name(ours: str, *, pooled: bool, wrapped: bool = False) -> str:
    """Return pytorchvideo's name for one of our state-dict names; the pool is one of their blocks."""
    if ours.startswith("head."):
        return ours.replace("head", f"blocks.{6 if pooled else 5}.proj")
    if ours.startswith("path.stem."):
        return ours.replace("path.stem", "blocks.0")
    match = re.fullmatch(r"path\.stages\.(\d)\.(\d+)\.(branch|shortcut|nl)\.(.+)", ours)
    assert match is not None, ours
    stage, block, part, rest = match.groups()
    number = int(stage) + 1 + (1 if pooled and int(stage) else 0)
    if part == "branch":
        rest = f"branch2.{rest}"
    elif part == "nl":
        rest = rest if rest.startswith("norm") else f"conv_{rest}"
    else:
        rest = rest.replace("0.", "branch1_conv.", 1) if rest[0] == "0" else f"branch1_norm.{rest[2:]}"
    if wrapped and (int(stage), int(block)) in NON_LOCAL_AFTER:
        rest = f"{int(part == 'nl')}.{rest}"
    return f"blocks.{number}.res_blocks.{block}.{rest}"


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("slowfast_r50_4x16", ["1.1", "1.3", "2.1", "2.3", "2.5"]),
        ("slowfast_16x8_r101_50_50", ["2.6", "2.13", "2.20"]),
        ("i3d_r101", ["1.1", "1.3", "2.1", "2.3", "2.5"]),
        ("slowfast_r18", ["1.1", "2.1"]),
    ],
)
def test_non_local_blocks_follow_the_blocks_of_the_published_networks(name: str, places: list[str]) -> None:
    with torch.device("meta"):
        model = models.create_model(name, num_classes=2, non_local="dot_product", non_local_pool="after")
    found = {key: module for key, module in model.named_modules() if isinstance(module, NonLocal3d)}
    path = "slow" if name.startswith("slowfast") else "path"
    assert list(found) == [f"{path}.stages.{place}.nl" for place in places]
    assert all((module.kind, module.pool) == ("dot_product", "after") for module in found.values())


def test_mmaction2s_strides_leave_a_single_position_of_a_short_clip() -> None:
    model = models.create_model("i3d_r50", num_classes=2, width=4, stem_temporal_stride=2, stem_pool_temporal_stride=2)
    assert model(torch.zeros(2, 3, 3, 32, 32)).shape == (2, 2)


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
