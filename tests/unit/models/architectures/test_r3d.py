"""The 3-D residual networks of Hara et al. and R(2+1)D of MMAction2, written a second time by plain functions."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import models
from models.architectures.r3d import split_midplanes

from ..oracles import random_clip, randomise, relative_gap
from ..tiny import tiny


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("r3d_18_hara", {}),
        ("r3d_18_hara", {"stem_temporal_stride": 2, "stem_frames": 3, "stem_pool": False, "shortcut": "padding"}),
        ("r3d_50_hara", {}),
        ("r2plus1d_18_hara", {"stem_temporal_stride": 2}),
        ("r2plus1d_50_hara", {"shortcut": "padding"}),
        # MMAction2's, which pools images after the stem.
        ("r2plus1d_18", {"midplanes": "paper", "stem_midplanes": "paper", "shortcut": "split", "stem_pool": True}),
    ],
)
def test_network_is_that_of_the_authors(name: str, options: dict[str, Any]) -> None:
    model = tiny(name, **options)
    randomise(model, seed=6)
    model.double().eval()
    clip = random_clip(2, 3, 17, 47, 49)
    form = {"split": "r2plus1d" in name, "bottleneck": "_50" in name}
    state = {their_name(key, **form): tensor for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        pool = (3, 2, 1) if name.endswith("_hara") else ((1, 3, 3), (1, 2, 2), (0, 1, 1))
        assert relative_gap(model(clip), program(state, clip, options, pool)) < 1e-10


def their_name(ours: str, *, split: bool, bottleneck: bool) -> str:
    """Return the authors' name of one of our state-dict names."""
    rules = [(r"(^|\.)stem\.(\d)", r"\1conv1.0.\2" if split else r"\1conv1.\2")]
    # In the stem the second norm has the number 4; in blocks it stands beside the halves of the convolution.
    rules += [(r"^conv1\.0\.4\.", "bn1_t.")]
    rules += [
        (r"conv(\d)\.0\.0\.", r"conv\1_s."),
        (r"conv(\d)\.0\.1\.", r"bn\1_s."),
        (r"conv(\d)\.0\.3\.", r"conv\1_t."),
    ]
    if split:
        rules += [(r"conv(2)\.1\." if bottleneck else r"conv([12])\.1\.", r"bn\1_t.")]
    rules += [(r"conv(\d)\.0\.", r"conv\1."), (r"conv(\d)\.1\.", r"bn\1.")]
    for pattern, replacement in rules:
        ours = re.sub(pattern, replacement, ours)
    return ours


def program(state: dict[str, Tensor], clip: Tensor, options: dict[str, Any], pool: tuple[Any, Any, Any]) -> Tensor:
    """Return the logits of the authors' network of weights under their names, in evaluation mode."""
    x = F.relu(layer(state, clip, "", 1, (options.get("stem_temporal_stride", 1), 2)))
    if options.get("stem_pool", True):
        x = F.max_pool3d(x, *pool)
    blocks = sorted({(int(m[1]), int(m[2])) for key in state if (m := re.match(r"layer(\d)\.(\d+)\.", key))})
    for stage, block in blocks:
        prefix = f"layer{stage}.{block}."
        stride = 2 if stage > 1 and block == 0 else 1
        if any(key.startswith(f"{prefix}conv3") for key in state):
            y = F.relu(layer(state, x, prefix, 1))
            y = layer(state, F.relu(layer(state, y, prefix, 2, (stride, stride))), prefix, 3)
        else:
            y = layer(state, F.relu(layer(state, x, prefix, 1, (stride, stride))), prefix, 2)
        x = F.relu(y + shortcut(state, x, prefix, stride, y.shape[1]))
    return x.mean((2, 3, 4)) @ state["fc.weight"].T + state["fc.bias"]


def layer(state: dict[str, Tensor], x: Tensor, prefix: str, number: int, strides: tuple[int, int] = (1, 1)) -> Tensor:
    """Return one convolution with its norm, full or in two halves; strides are those of time and of space."""
    t, s = strides
    name, bn = f"{prefix}conv{number}", f"{prefix}bn{number}"
    if f"{name}_s.weight" in state:
        x = F.relu(norm(state, conv(state, x, f"{name}_s", (1, s, s)), f"{bn}_s"))
        return norm(state, conv(state, x, f"{name}_t", (t, 1, 1)), f"{bn}_t")
    return norm(state, conv(state, x, name, (t, s, s)), bn)


def shortcut(state: dict[str, Tensor], x: Tensor, prefix: str, stride: int, channels: int) -> Tensor:
    """Return the projected maps, or every second position and zeros for the channels that are new."""
    name = f"{prefix}downsample"
    if f"{name}.3.weight" in state:
        x = F.relu(norm(state, conv(state, x, f"{name}.0", (1, stride, stride)), f"{name}.1"))
        return norm(state, conv(state, x, f"{name}.3", (stride, 1, 1)), f"{name}.4")
    if f"{name}.0.weight" in state:
        return norm(state, conv(state, x, f"{name}.0", (stride,) * 3), f"{name}.1")
    if stride == 1 and x.shape[1] == channels:
        return x
    x = F.avg_pool3d(x, 1, stride)
    return torch.cat([x, x.new_zeros(x.shape[0], channels - x.shape[1], *x.shape[2:])], 1)


def norm(state: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    """Return the maps normalised by the running statistics."""
    values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, values[0], values[1], values[2], values[3])


def conv(state: dict[str, Tensor], x: Tensor, name: str, stride: tuple[int, ...]) -> Tensor:
    """Return a convolution, padded so that a stride of one keeps the shape."""
    weight = state[f"{name}.weight"]
    return F.conv3d(x, weight, stride=stride, padding=[size // 2 for size in weight.shape[2:]])


def test_stem_in_two_halves_has_the_size_of_the_formula() -> None:
    with torch.device("meta"):
        model = models.create_model("r2plus1d_18_hara", num_classes=2)
    # 3 * 64 * 7 * 49 weights of a full kernel, by 3 * 49 + 7 * 64 for each channel between the halves.
    assert model.get_parameter("stem.0.weight").shape[0] == 3 * 64 * 7 * 49 // (3 * 49 + 7 * 64)
    assert split_midplanes(3, 64, (7, 7)) == 110
