"""PyTorchVideo's names."""

from __future__ import annotations

import re

from ..layout import Candidate, Layout, Reading, Rules, State, by_rules, count, has

_PATHS = ("slow", "fast")


def _path(match: re.Match[str], group: int = 1) -> str:
    return _PATHS[int(match[group])]


_NAMES: Rules = [
    (r"^blocks\.0\.multipathway_blocks\.([01])\.", lambda m: f"{_path(m)}.stem."),
    (r"^blocks\.0\.(conv|norm)\.", r"path.stem.\1."),
    (r"^blocks\.([0-3])\.multipathway_fusion\.conv_fast_to_slow\.", r"laterals.\1.conv."),
    (r"^blocks\.([0-3])\.multipathway_fusion\.norm\.", r"laterals.\1.norm."),
    (
        r"^blocks\.([1-4])\.multipathway_blocks\.([01])\.res_blocks\.(\d+)\.",
        lambda m: f"{_path(m, 2)}.stages.{int(m[1]) - 1}.{m[3]}.",
    ),
    (r"\.branch1_conv\.", ".shortcut.0."),
    (r"\.branch1_norm\.", ".shortcut.1."),
    (r"\.branch2\.", ".branch."),
    (r"^blocks\.\d\.proj\.", "head."),
]
_X3D: Rules = [
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


def _read(state: State) -> Reading | None:
    if not has(state, r"blocks\.0\.(conv|multipathway_blocks\.0\.conv)\.weight$"):
        return None
    if has(state, r"blocks\.0\.multipathway_blocks\.1\."):
        deep = count(state, r"blocks\.3\.multipathway_blocks\.0\.res_blocks\.(\d+)\.") > 6
        models = (
            ("slowfast_r101", "slowfast_r101_8x8", "slowfast_16x8_r101_50_50")
            if deep
            else ("slowfast_r50_4x16", "slowfast_r50_8x8")
        )
        return by_rules(state, _NAMES, network="SlowFast", candidates=_each(*models))
    single = ("slow_r50", "c2d_r50", "i3d_r50", "i3d_r101", "csn_r101", "r2plus1d_r50")
    return by_rules(state, _stages(state), _NAMES, network="ResNet of one path", candidates=_each(*single))


def _stages(state: State) -> Rules:
    """Return the rule that numbers stages from 0: a pool after the first has a number of its own in some networks."""
    pattern = r"blocks\.(\d)\.res_blocks\."
    found = sorted({int(match[1]) for name in state if (match := re.match(pattern, name))})
    numbers = {str(theirs): str(ours) for ours, theirs in enumerate(found)}
    return [(r"^blocks\.(\d)\.res_blocks\.(\d+)\.", lambda m: f"path.stages.{numbers[m[1]]}.{m[2]}.")]


def _x3d(state: State) -> Reading | None:
    if not has(state, r"blocks\.0\.conv\.conv_xy\."):
        return None
    models = ("x3d_l",) if count(state, r"blocks\.3\.res_blocks\.(\d+)\.") > 11 else ("x3d_xs", "x3d_s", "x3d_m")
    return by_rules(state, _X3D, network="X3D", candidates=_each(*models))


def _each(*models: str) -> tuple[Candidate, ...]:
    return tuple(Candidate(model=model) for model in models)


LAYOUTS = (Layout(name="PyTorchVideo", read=_read), Layout(name="PyTorchVideo's X3D", read=_x3d))
