"""X3D is pytorchvideo's, to rounding, through a map of names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import nn

import models

from ..oracles import assert_same_network, pytorchvideo, random_clip, randomise


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    # With an unlucky seed a gate's few hidden units are all off, and its weights get no gradient to compare.
    ("name", "depth_factor", "seed", "options"),
    [
        ("x3d_s", 2.2, 5, {}),
        ("x3d_s", 2.2, 5, {"shortcut_norm": True, "project_norm": True}),
        pytest.param("x3d_l", 5.0, 1, {}, marks=pytest.mark.slow),
    ],
)
def test_same_network_as_pytorchvideo(name: str, depth_factor: float, seed: int, options: dict[str, Any]) -> None:
    ours = models.create_model(name, num_classes=5, dropout=0.0, **options)
    randomise(ours, seed=seed)
    theirs = pytorchvideo("x3d").create_x3d(
        input_clip_length=4,
        input_crop_size=64,
        model_num_class=5,
        dropout_rate=0.0,
        depth_factor=depth_factor,
        head_activation=None,
        head_bn_lin5_on=bool(options),
    )
    if options:
        # PySlowFast builds the same network with a norm in this shortcut.
        theirs.blocks[1].res_blocks[0].branch1_norm = nn.BatchNorm3d(24)
    names = {key: their_name(key) for key in ours.state_dict()}
    theirs.load_state_dict({names[key]: tensor for key, tensor in ours.state_dict().items()}, strict=True)
    ours.double()
    theirs.double()
    clip = random_clip(2, 3, 4, 64, 64)
    assert_same_network(ours, theirs, clip, lambda: clip, names)


def their_name(ours: str) -> str:
    """Return pytorchvideo's name for one of our state-dict names."""
    plain = {
        # They call the first convolution temporal; it is the spatial one.
        "stem.conv_space": "blocks.0.conv.conv_t",
        "stem.conv_time": "blocks.0.conv.conv_xy",
        "stem.norm": "blocks.0.norm",
        "widen.conv": "blocks.5.pool.pre_conv",
        "widen.norm": "blocks.5.pool.pre_norm",
        "project.conv": "blocks.5.pool.post_conv",
        "project.norm": "blocks.5.pool.post_norm",
        "head": "blocks.5.proj",
    }
    layer, _, tensor = ours.rpartition(".")
    if layer in plain:
        return f"{plain[layer]}.{tensor}"
    match = re.fullmatch(r"stages\.(\d)\.(\d+)\.(.+)", layer)
    assert match is not None, ours
    rest = match[3]
    for pattern, replacement in [
        (r"^shortcut\.", "branch1_"),
        (r"^branch\.norm_b", "branch2.norm_b.0"),
        (r"^branch\.gate\.squeeze", "branch2.norm_b.1.block.0"),
        (r"^branch\.gate\.excite", "branch2.norm_b.1.block.2"),
        (r"^branch\.", "branch2."),
    ]:
        rest = re.sub(pattern, replacement, rest)
    return f"blocks.{int(match[1]) + 1}.res_blocks.{match[2]}.{rest}.{tensor}"
