"""CSN and the R(2+1)D of bottlenecks are pytorchvideo's, to rounding, through a map of names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

import models

from ..oracles import TOLERANCE, assert_same_network, pytorchvideo, random_clip, randomise, relative_gap

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "csn_r101": ("csn", "create_csn", {"model_depth": 101, "stem_pool": nn.MaxPool3d}),
    "r2plus1d_r50": ("r2plus1d", "create_r2plus1d", {"head_activation": None}),
}


@pytest.mark.parametrize("name", CASES)
def test_same_network_as_pytorchvideo(name: str) -> None:
    module, builder, options = CASES[name]
    ours = models.create_model(name, num_classes=5, dropout=0.0, width=16)
    randomise(ours, seed=6)
    frames = 1 if name == "csn_r101" else 2
    theirs = getattr(pytorchvideo(module), builder)(
        **options, model_num_class=5, dropout_rate=0.0, stem_dim_out=16, head_pool_kernel_size=(frames, 2, 2)
    )
    names = {key: their_name(key) for key in ours.state_dict()}
    theirs.load_state_dict({names[key]: tensor for key, tensor in ours.state_dict().items()}, strict=True)
    ours.double()
    theirs.double()
    clip = random_clip(2, 3, 8, 48, 48)
    assert_same_network(ours, theirs, clip, lambda: clip, names)


def their_name(ours: str) -> str:
    """Return pytorchvideo's name for one of our state-dict names."""
    if ours.startswith("head."):
        return ours.replace("head", "blocks.5.proj")
    if ours.startswith("path.stem."):
        return ours.replace("path.stem", "blocks.0")
    match = re.fullmatch(r"path\.stages\.(\d)\.(\d+)\.(.+)", ours)
    assert match is not None, ours
    rest = match[3].replace("branch.", "branch2.", 1)
    rest = rest.replace("shortcut.0.", "branch1_conv.").replace("shortcut.1.", "branch1_norm.")
    return f"blocks.{int(match[1]) + 1}.res_blocks.{match[2]}.{rest}"


@pytest.mark.parametrize(("name", "time"), [("csn_r101", 8), ("r2plus1d_r50", 4)])
def test_time_and_space_are_divided_as_published(name: str, time: int) -> None:
    model = models.create_model(name, num_classes=2, width=4).eval()
    maps = model.get_submodule("path")(random_clip(1, 3, 16, 64, 64).float())
    assert maps.shape == (1, 128, 16 // time, 2, 2)


def test_the_preserved_block_mixes_channels_before_the_depthwise_convolution() -> None:
    model = models.create_model("csn_r152_ip", num_classes=3, width=8).double().eval()
    block = model.get_submodule("path.stages.1.0")
    randomise(block, seed=1)
    state = {name.removeprefix("branch."): tensor for name, tensor in block.state_dict().items()}

    def norm(x: Tensor, name: str) -> Tensor:
        moments = (state[f"{name}.running_mean"], state[f"{name}.running_var"])
        return F.batch_norm(x, *moments, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3)

    x = random_clip(1, 32, 4, 6, 6)
    y = F.relu(norm(F.conv3d(x, state["conv_a.weight"]), "norm_a"))
    y = norm(F.conv3d(y, state["conv_b.mix.weight"]), "conv_b.norm")
    y = F.conv3d(y, state["conv_b.depthwise.weight"], stride=2, padding=1, groups=16)
    y = norm(F.conv3d(F.relu(norm(y, "norm_b")), state["conv_c.weight"]), "norm_c")
    assert relative_gap(block.get_submodule("branch")(x), y) < TOLERANCE
