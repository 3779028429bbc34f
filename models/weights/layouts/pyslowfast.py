"""PySlowFast's names, and those of its older files of Caffe2."""

from __future__ import annotations

import re

from ...card import Value
from ..layout import Candidate, Layout, Reading, Rules, State, by_rules, count, has, renamed

_PATHS = ("slow", "fast")


def _path(match: re.Match[str], group: int = 1) -> str:
    return _PATHS[int(match[group])]


NAMES: Rules = [
    (r"^s1\.pathway([01])_stem\.conv\.", lambda m: f"{_path(m)}.stem.conv."),
    (r"^s1\.pathway([01])_stem\.bn\.", lambda m: f"{_path(m)}.stem.norm."),
    (r"^s([1-4])_fuse\.conv_f2s\.", lambda m: f"laterals.{int(m[1]) - 1}.conv."),
    (r"^s([1-4])_fuse\.bn\.", lambda m: f"laterals.{int(m[1]) - 1}.norm."),
    (
        r"^s([2-5])\.pathway([01])_nonlocal(\d+)\.(?:conv_)?",
        lambda m: f"{_path(m, 2)}.stages.{int(m[1]) - 2}.{m[3]}.nl.",
    ),
    (r"\.nl\.bn\.", ".nl.norm."),
    (r"^s([2-5])\.pathway([01])_res(\d+)\.", lambda m: f"{_path(m, 2)}.stages.{int(m[1]) - 2}.{m[3]}."),
    (r"\.branch1\.", ".shortcut.0."),
    (r"\.branch1_bn\.", ".shortcut.1."),
    (r"\.branch2\.([abc])\.", r".branch.conv_\1."),
    (r"\.branch2\.([abc])_bn\.", r".branch.norm_\1."),
    (r"^head\.projection\.", "head."),
]
_X3D: Rules = [
    (r"^s1\.pathway0_stem\.conv_xy\.", "stem.conv_space."),
    (r"^s1\.pathway0_stem\.conv\.", "stem.conv_time."),
    (r"^s1\.pathway0_stem\.bn\.", "stem.norm."),
    (r"^s([2-5])\.pathway0_res(\d+)\.", lambda m: f"stages.{int(m[1]) - 2}.{m[2]}."),
    (r"\.branch1\.", ".shortcut.conv."),
    (r"\.branch1_bn\.", ".shortcut.norm."),
    (r"\.branch2\.([abc])\.", r".branch.conv_\1."),
    (r"\.branch2\.([abc])_bn\.", r".branch.norm_\1."),
    (r"\.branch2\.se\.fc1\.", ".branch.gate.squeeze."),
    (r"\.branch2\.se\.fc2\.", ".branch.gate.excite."),
    (r"^head\.conv_5\.", "widen.conv."),
    (r"^head\.conv_5_bn\.", "widen.norm."),
    (r"^head\.lin_5\.", "project.conv."),
    (r"^head\.lin_5_bn\.", "project.norm."),
    (r"^head\.projection\.", "head."),
]
_ONE_PATH: Rules = [(r"^slow\.", "path.")]
# First the names of layers in Caffe2, then the suffixes of their parameters.
_CAFFE2: Rules = [
    (r"^nonlocal_conv(\d)_(\d+)_(theta|phi|g|out)_", r"s\1.pathway0_nonlocal\2.conv_\3_"),
    (r"^nonlocal_conv(\d)_(\d+)_bn_", r"s\1.pathway0_nonlocal\2.bn_"),
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


def _x3d(state: State) -> Reading | None:
    if not has(state, r"s1\.pathway0_stem\.conv_xy\."):
        return None
    large = count(state, r"s4\.pathway0_res(\d+)\.") > 11
    candidates = tuple(Candidate(model=model) for model in (("x3d_l",) if large else ("x3d_xs", "x3d_s", "x3d_m")))
    return by_rules(state, _X3D, network="X3D", candidates=candidates)


def _pyslowfast(state: State) -> Reading | None:
    if has(state, r"s1\.pathway0_stem\.conv_xy\."):
        return None
    return _reading(state, []) if has(state, r"s1\.pathway0_stem\.(conv|bn)\.") else None


def _caffe2(state: State) -> Reading | None:
    return _reading(state, _CAFFE2) if has(state, r"conv1_w$") and has(state, r"res2_0_branch2a_w$") else None


def _reading(state: State, caffe2: Rules) -> Reading:
    named = {renamed(name, caffe2): tensor for name, tensor in state.items()}
    if has(named, r"s1\.pathway1_stem\."):
        return by_rules(state, caffe2, NAMES, network="SlowFast", candidates=slowfast_candidates(named))
    return by_rules(state, caffe2, NAMES, _ONE_PATH, network="ResNet of one path", candidates=_one_path(named))


def slowfast_candidates(named: State, **options: Value) -> tuple[Candidate, ...]:
    """Return the SlowFast networks with the depth of a file with PySlowFast's names.

    A kernel of seven frames in the laterals goes with an alpha of 4, in the published networks; with one of five, alpha
    may be 4 or 8, which no tensor shows.
    """
    deep = count(named, r"s4\.pathway0_res(\d+)\.") > 6
    networks: tuple[str, ...]
    if not has(named, r"s2\.pathway0_res0\.branch2\.c\."):
        networks = ("slowfast_r18",)
    elif deep:
        networks = ("slowfast_r101", "slowfast_r101_8x8", "slowfast_16x8_r101_50_50")
    elif _lateral_frames(named) == 7:
        networks = ("slowfast_r50_8x8",)
    else:
        networks = ("slowfast_r50_4x16", "slowfast_r50_8x8")
    if has(named, r"s\d\.pathway0_nonlocal"):
        options |= {"non_local": "dot_product"}
    return tuple(Candidate(model=network, options=options) for network in networks)


def _lateral_frames(named: State) -> int:
    lateral = named.get("s1_fuse.conv_f2s.weight")
    return lateral.shape[2] if lateral is not None and lateral.ndim == 5 else 0


def _one_path(named: State) -> tuple[Candidate, ...]:
    deep = count(named, r"s4\.pathway0_res(\d+)\.") > 6
    models = ("i3d_r101",) if deep else ("slow_r50", "c2d_r50", "i3d_r50")
    if not has(named, r"s\d\.pathway0_nonlocal"):
        return tuple(Candidate(model=model) for model in models)
    # No tensor shows the kind; these are those of the published configurations.
    kinds: dict[str, Value] = {"slow_r50": "dot_product"}
    return tuple(Candidate(model=model, options={"non_local": kinds.get(model, "softmax")}) for model in models)


LAYOUTS = (
    Layout(name="PySlowFast", read=_pyslowfast),
    Layout(name="PySlowFast's X3D", read=_x3d),
    Layout(name="Caffe2", read=_caffe2),
)
