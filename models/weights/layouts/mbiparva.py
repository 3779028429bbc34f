"""Names of mbiparva's networks: SlowFast, and the streams of the spatiotemporal multiplier networks."""

from __future__ import annotations

from ...card import Value
from ..layout import Candidate, Layout, Reading, Rules, State, by_rules, count, has

_MULTIPLIER: Rules = [
    (r"\.sblock_(\d+)\.", r".\1."),
    (r"\.conv2_temporal\.", ".temporal_conv.conv."),
    (r"\.bn2_temporal\.", ".temporal_conv.bn."),
]
_SLOWFAST: Rules = [
    (r"^fast_net\.l_maxpool\.", "laterals.0.conv."),
    (r"^fast_net\.l_layer(\d)\.", r"laterals.\1.conv."),
    (r"^(slow|fast)_net\.conv1\.", r"\1.stem.conv."),
    (r"^(slow|fast)_net\.bn1\.", r"\1.stem.norm."),
    (r"^(slow|fast)_net\.layer(\d)\.(\d+)\.", lambda m: f"{m[1]}.stages.{int(m[2]) - 1}.{m[3]}."),
    (r"\.conv([123])\.", lambda m: f".branch.conv_{'abc'[int(m[1]) - 1]}."),
    (r"\.bn([123])\.", lambda m: f".branch.norm_{'abc'[int(m[1]) - 1]}."),
    (r"\.downsample\.", ".shortcut."),
    (r"^fc\.", "head."),
]
# The program joins the streams after a ReLU, in the third block, and pools space before time.
_MULTIPLIER_OPTIONS: dict[str, Value] = {
    "gate": "mul",
    "gate_block": 2,
    "gate_preact": False,
    "pool_order": "space_first",
    "head_relu": True,
}
_RGB = 3


def _multiplier(state: State) -> Reading | None:
    if not has(state, r"layer1\.sblock_0\."):
        return None
    stem = state.get("conv1.weight")
    stream = "spatial" if stem is None or stem.shape[1] == _RGB else "temporal"
    depth = {6: 50, 23: 101, 36: 152}.get(count(state, r"layer3\.sblock_(\d+)\."), 50)
    options = {**_MULTIPLIER_OPTIONS, "temporal_block": _temporal_block(state)}
    candidates = (Candidate(model=f"stmulnet_r{depth}", options=options, stream=stream),)
    return by_rules(state, _MULTIPLIER, network=f"the {stream} stream of the multiplier network", candidates=candidates)


def _temporal_block(state: State) -> int:
    """Return the block of each stage that convolves over time."""
    for number in range(3):
        if has(state, rf"layer1\.sblock_{number}\.conv2_temporal\."):
            return number
    return 1


def _slowfast(state: State) -> Reading | None:
    if not has(state, r"slow_net\.conv1\.") or not has(state, r"fast_net\.l_maxpool\."):
        return None
    # The strides of the laterals are 8 in the program, whatever its alpha.
    candidates = (Candidate(model="slowfast_r50_4x16", options={"alpha": 8, "slow_index": "stride"}),)
    return by_rules(state, _SLOWFAST, network="SlowFast", candidates=candidates)


LAYOUTS = (Layout(name="multiplier network", read=_multiplier), Layout(name="mbiparva's SlowFast", read=_slowfast))
