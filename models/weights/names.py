"""Translating the names of parameters from the layouts of other programs to ours.

A layout is a list of rules, each a regular expression and its replacement, applied in order to every name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]

_PATHS = ("slow", "fast")


def _path(match: re.Match[str], group: int = 1) -> str:
    return _PATHS[int(match[group])]


_BLOCK: Rules = [
    (r"\.branch1\.", ".shortcut.0."),
    (r"\.branch1_bn\.", ".shortcut.1."),
    (r"\.branch2\.([abc])\.", r".branch.conv_\1."),
    (r"\.branch2\.([abc])_bn\.", r".branch.norm_\1."),
]
PYSLOWFAST: Rules = [
    (r"^s1\.pathway([01])_stem\.conv\.", lambda m: f"{_path(m)}.stem.conv."),
    (r"^s1\.pathway([01])_stem\.bn\.", lambda m: f"{_path(m)}.stem.norm."),
    (r"^s([1-4])_fuse\.conv_f2s\.", lambda m: f"laterals.{int(m[1]) - 1}.conv."),
    (r"^s([1-4])_fuse\.bn\.", lambda m: f"laterals.{int(m[1]) - 1}.norm."),
    (r"^s([2-5])\.pathway([01])_res(\d+)\.", lambda m: f"{_path(m, 2)}.stages.{int(m[1]) - 2}.{m[3]}."),
    *_BLOCK,
    (r"^head\.projection\.", "head."),
]
# First the names of layers in Caffe2, then the suffixes of their parameters.
CAFFE2: Rules = [
    (r"^t_(?:pool1|res_?conv1_bn|conv1)_subsample_", "s1_fuse.conv_f2s_"),
    (r"^t_res(\d)_\d+_branch2[abc]_bn_subsample_", r"s\1_fuse.conv_f2s_"),
    (r"^(s\d_fuse\.)conv_f2s_bn_", r"\1bn_"),
    (r"^t_res_conv1_bn_", "s1.pathway1_stem.bn_"),
    (r"^res_conv1_bn_", "s1.pathway0_stem.bn_"),
    (r"^t_conv1_", "s1.pathway1_stem.conv_"),
    (r"^conv1_", "s1.pathway0_stem.conv_"),
    (r"^t_res(\d)_(\d+)_branch", r"s\1.pathway1_res\2.branch"),
    (r"^res(\d)_(\d+)_branch", r"s\1.pathway0_res\2.branch"),
    (r"\.branch2([abc])_", r".branch2.\1_"),
    (r"^pred_", "head.projection_"),
    (r"_(w|s)$", ".weight"),
    (r"_b$", ".bias"),
    (r"_rm$", ".running_mean"),
    (r"_riv$", ".running_var"),
]
PYTORCHVIDEO: Rules = [
    (r"^blocks\.0\.multipathway_blocks\.([01])\.", lambda m: f"{_path(m)}.stem."),
    (r"^blocks\.0\.(conv|norm)\.", r"slow.stem.\1."),
    (r"^blocks\.([0-3])\.multipathway_fusion\.conv_fast_to_slow\.", r"laterals.\1.conv."),
    (r"^blocks\.([0-3])\.multipathway_fusion\.norm\.", r"laterals.\1.norm."),
    (
        r"^blocks\.([1-4])\.multipathway_blocks\.([01])\.res_blocks\.(\d+)\.",
        lambda m: f"{_path(m, 2)}.stages.{int(m[1]) - 1}.{m[3]}.",
    ),
    (r"^blocks\.([1-5])\.res_blocks\.(\d+)\.", r"slow.stages.\1.\2."),
    (r"\.branch1_conv\.", ".shortcut.0."),
    (r"\.branch1_norm\.", ".shortcut.1."),
    (r"\.branch2\.", ".branch."),
    (r"^blocks\.\d\.proj\.", "head."),
]
PYTORCHVIDEO_X3D: Rules = [
    # PyTorchVideo calls the first convolution temporal, but it is the spatial one.
    (r"^blocks\.0\.conv\.conv_t\.", "stem.conv_space."),
    (r"^blocks\.0\.conv\.conv_xy\.", "stem.conv_time."),
    (r"^blocks\.0\.norm\.", "stem.norm."),
    (r"^blocks\.5\.pool\.pre_(conv|norm)\.", r"widen.\1."),
    (r"^blocks\.5\.pool\.post_conv\.", "project.conv."),
    (r"^blocks\.5\.proj\.", "head."),
    (r"^blocks\.([1-4])\.res_blocks\.(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.{m[2]}."),
    (r"\.branch1_(conv|norm)\.", r".shortcut.\1."),
    (r"\.branch2\.norm_b\.0\.", ".branch.norm_b."),
    (r"\.branch2\.norm_b\.1\.block\.0\.", ".branch.gate.squeeze."),
    (r"\.branch2\.norm_b\.1\.block\.2\.", ".branch.gate.excite."),
    (r"\.branch2\.", ".branch."),
]
IBM: Rules = [
    (r"^baseline_model\.", ""),
    (r"^new_fc\.", "fc."),
    (r"(^|\.)tam\.(prev|curr|next)\.weight$", r"\1tam.\2_se.fc1.weight"),
    (r"(^|\.)tam\.blending_layers\.(\d+)\.weight$", r"\1tam.blending_layers.\2.fc1.weight"),
]
MULTIPLIER: Rules = [
    (r"\.sblock_(\d+)\.", r".\1."),
    (r"\.conv2_temporal\.", ".temporal_conv.conv."),
    (r"\.bn2_temporal\.", ".temporal_conv.bn."),
]
LAYOUTS: dict[str, list[Rules]] = {
    "as it is": [],
    "PySlowFast": [PYSLOWFAST],
    "Caffe2": [CAFFE2, PYSLOWFAST],
    "PyTorchVideo": [PYTORCHVIDEO],
    "PyTorchVideo's X3D": [PYTORCHVIDEO_X3D],
    "IBM": [IBM],
    "multiplier network": [MULTIPLIER],
}


def translate(names: Iterable[str], wanted: set[str]) -> tuple[str, dict[str, str]]:
    """Return the layout that matches most of the `wanted` names, and its translation of each name."""
    names = list(names)
    best: tuple[str, dict[str, str]] = ("as it is", {name: name for name in names})
    best_hits = len(wanted & set(names))
    for layout, steps in LAYOUTS.items():
        for single in (False, True):
            renamed = {name: _renamed(name, steps) for name in names}
            if single:
                renamed = _single_path(renamed)
            hits = len(wanted & set(renamed.values()))
            if hits > best_hits:
                best, best_hits = (layout, renamed), hits
    return best


def _renamed(name: str, steps: list[Rules]) -> str:
    for rules in steps:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
    return name


def _single_path(renamed: Mapping[str, str]) -> dict[str, str]:
    """Return the translations with the slow path's names changed to those of a network of one path.

    Stages are renumbered, because in some layouts a pool between two of them has a number too.
    """
    stages = sorted({int(match[1]) for name in renamed.values() if (match := re.match(r"slow\.stages\.(\d)\.", name))})
    numbers = {str(stage): str(index) for index, stage in enumerate(stages)}

    def single(name: str) -> str:
        name = re.sub(r"^slow\.stages\.(\d)\.", lambda m: f"path.stages.{numbers[m[1]]}.", name)
        return re.sub(r"^slow\.", "path.", name)

    return {old: single(new) for old, new in renamed.items()}
