"""Names of MMAction2: ``backbone.`` and ``cls_head.``, a convolution, its norm and ReLU in one module."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...card import Value
from ...catalogue import list_models, model_info
from ..layout import (
    COMPUTED,
    Candidate,
    Layout,
    Reading,
    Rules,
    State,
    by_rules,
    count,
    has,
    refused,
    resnet_depth,
    with_epsilon,
)

_NAME = "MMAction2"
# In its CSN, and in its R(2+1)D for the norms that follow both halves of a convolution.
_EPSILON = 1e-3
# Names of torchvision's ResNet.
_IMAGE: Rules = [
    (r"^backbone\.", ""),
    (r"^(layer\d\.\d+)\.(?:block|net)\.", r"\1."),
    (r"^conv1\.conv\.", "conv1."),
    (r"^conv1\.bn\.", "bn1."),
    (r"\.conv(\d)\.conv\.(?:net\.)?", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".bn\1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
    (r"^cls_head\.fc_cls\.", "fc."),
]
_NON_LOCAL: Rules = [
    (r"\.non_local_block\.(g|phi|theta)\.(?:0\.)?conv\.", r".nl.\1."),
    (r"\.non_local_block\.conv_out\.conv\.", ".nl.out."),
    (r"\.non_local_block\.conv_out\.bn\.", ".nl.norm."),
]
_BLOCK: Rules = [
    (r"\.conv([123])\.(?:0\.)?conv\.", lambda m: f".branch.conv_{'abc'[int(m[1]) - 1]}."),
    (r"\.conv([123])\.(?:0\.)?bn\.", lambda m: f".branch.norm_{'abc'[int(m[1]) - 1]}."),
    (r"\.downsample\.conv\.", ".shortcut.0."),
    (r"\.downsample\.bn\.", ".shortcut.1."),
    (r"(^|\.)layer(\d)\.(\d+)\.", lambda m: f"{m[1]}stages.{int(m[2]) - 1}.{m[3]}."),
    (r"^cls_head\.fc_cls\.", "head."),
]
_PRESERVED: Rules = [
    (r"\.conv2\.0\.conv\.", ".branch.conv_b.mix."),
    (r"\.conv2\.0\.bn\.", ".branch.conv_b.norm."),
    (r"\.conv2\.1\.conv\.", ".branch.conv_b.depthwise."),
    (r"\.conv2\.1\.bn\.", ".branch.norm_b."),
]
_SPLIT: Rules = [
    (r"^backbone\.conv1\.bn\.", "stem.4."),
    (r"^backbone\.conv1\.conv\.", "stem."),
    (r"^backbone\.", ""),
    (r"\.conv([12])\.bn\.", r".conv\1.1."),
    (r"\.conv([12])\.conv\.", r".conv\1.0."),
    (r"\.downsample\.bn\.", ".downsample.4."),
    (r"\.downsample\.conv\.", ".downsample."),
    (r"\.conv_s\.", ".0."),
    (r"\.bn_s\.", ".1."),
    (r"\.conv_t\.", ".3."),
    (r"^cls_head\.fc_cls\.", "fc."),
]
_C3D: Rules = [
    (r"^backbone\.(conv\d\w)\.conv\.", r"\1."),
    (r"^backbone\.", ""),
    (r"^cls_head\.fc_cls\.", "fc8."),
]
_SLOWFAST: Rules = [
    (r"^backbone\.slow_path\.conv1_lateral\.", "laterals.0."),
    (r"^backbone\.slow_path\.layer(\d)_lateral\.", r"laterals.\1."),
    (r"^(laterals\.\d\.)bn\.", r"\1norm."),
    (r"^backbone\.(slow|fast)_path\.conv1\.conv\.", r"\1.stem.conv."),
    (r"^backbone\.(slow|fast)_path\.conv1\.bn\.", r"\1.stem.norm."),
    (r"^backbone\.(slow|fast)_path\.", r"\1."),
]
_ONE_PATH: Rules = [
    (r"^backbone\.conv1\.conv\.", "path.stem.conv."),
    (r"^backbone\.conv1\.bn\.", "path.stem.norm."),
    (r"^backbone\.", "path."),
]
_X3D: Rules = [
    (r"^backbone\.conv1_s\.conv\.", "stem.conv_space."),
    (r"^backbone\.conv1_t\.conv\.", "stem.conv_time."),
    (r"^backbone\.conv1_t\.bn\.", "stem.norm."),
    (r"^backbone\.conv5\.conv\.", "widen.conv."),
    (r"^backbone\.conv5\.bn\.", "widen.norm."),
    (r"^backbone\.layer(\d)\.(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.{m[2]}."),
    (r"\.conv([123])\.conv\.", lambda m: f".branch.conv_{'abc'[int(m[1]) - 1]}."),
    (r"\.conv([123])\.bn\.", lambda m: f".branch.norm_{'abc'[int(m[1]) - 1]}."),
    (r"\.se_module\.fc1\.", ".branch.gate.squeeze."),
    (r"\.se_module\.fc2\.", ".branch.gate.excite."),
    (r"\.downsample\.conv\.", ".shortcut.conv."),
    (r"\.downsample\.bn\.", ".shortcut.norm."),
    (r"^cls_head\.fc1\.", "project.conv."),
    (r"^cls_head\.fc2\.", "head."),
]
_SWIN: Rules = [
    (r"^backbone\.norm3?\.", "norm."),
    (r"^backbone\.", ""),
    (r"^layers\.(\d)\.blocks\.", lambda m: f"features.{2 * int(m[1])}."),
    (r"^layers\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 1}."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^cls_head\.fc_cls\.", "head."),
]
_MVIT: Rules = [
    (r"^backbone\.norm3\.", "norm."),
    (r"^backbone\.", ""),
    (r"^patch_embed\.projection\.", "conv_proj."),
    (r"^cls_token$", "pos_encoding.class_token"),
    (r"\.attn\.proj\.", ".attn.project.0."),
    (r"\.attn\.pool_([qkv])\.", r".attn.pool_\1.pool."),
    (r"\.attn\.norm_([qkv])\.", r".attn.pool_\1.norm_act.0."),
    (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^cls_head\.fc_cls\.", "head.1."),
]


def _read(state: State) -> Reading | None:
    if not has(state, r"backbone\.") or not has(state, r"cls_head\."):
        return None
    for pattern, read in _NETWORKS:
        if has(state, pattern):
            return read(state)
    return None


def _slowfast(state: State) -> Reading:
    """Return the reading of SlowFast, whose head takes the fast path's features first and ours those of the slow."""
    fast = state["backbone.fast_path.conv1.conv.weight"].shape[0] * 32
    head = state.get("cls_head.fc_cls.weight")
    if head is not None and head.ndim == 2:
        columns = torch.cat((head[:, fast:], head[:, :fast]), dim=1)
        state = {**state, "cls_head.fc_cls.weight": columns}
    deep = count(state, r"backbone\.slow_path\.layer3\.(\d+)\.") > 6
    lateral = state.get("backbone.slow_path.conv1_lateral.conv.weight")
    wide = lateral is not None and lateral.shape[2] == 7
    # In its published files, an alpha of 4 goes with a kernel of seven frames in the laterals, 8 with one of five.
    models = ("slowfast_r101", "slowfast_r101_8x8") if deep else ("slowfast_r50_4x16", "slowfast_r50_8x8")
    candidates = (Candidate(model=models[wide], options={"slow_index": "stride"}),)
    return by_rules(state, _SLOWFAST, _BLOCK, network="SlowFast", candidates=candidates)


def _resnet(state: State) -> Reading:
    """Return the reading of a ResNet, of frames or of volumes."""
    stem = state.get("backbone.conv1.conv.weight")
    return _frames(state) if stem is not None and stem.ndim == 4 else _volumes(state)


def _frames(state: State) -> Reading:
    """Return the reading of a ResNet of frames: TSN or TSM."""
    depth = resnet_depth(state, r"backbone\.layer{}\.(\d+)\.")
    if has(state, r"backbone\.layer1\.0\.tam\."):
        return by_rules(state, _IMAGE, network="TANet", candidates=(Candidate(model=f"tanet_resnet{depth}"),))
    around_block = has(state, r"backbone\.layer1\.0\.net\.")
    if not around_block and not has(state, r"backbone\.layer1\.0\.conv1\.conv\.net\."):
        return by_rules(state, _IMAGE, network="TSN", candidates=(Candidate(model=f"tsn_resnet{depth}"),))
    options: dict[str, Value] = {
        "shift_place": "block" if around_block else "branch",
        "shift_divisor": 8,
        "shift_every": 1 if has(state, r"backbone\.layer1\.1\.(conv1\.conv\.)?net\.") else 2,
    }
    model = f"tsm_resnet{depth}"
    if not has(state, r"backbone\.layer\d\.\d+\.non_local_block\."):
        return by_rules(state, _IMAGE, network="TSM", candidates=(Candidate(model=model, options=options),))
    candidates = tuple(
        Candidate(model=model, options={**options, "non_local_form": form}) for form in ("tsm", "tsm_dot_product")
    )
    return _with_non_local(state, _IMAGE, network="TSM with non-local blocks", candidates=candidates)


def _volumes(state: State) -> Reading:
    """Return the reading of a ResNet of volumes: SlowOnly, I3D, CSN or R(2+1)D."""
    if has(state, r"backbone\.conv1\.conv\.conv_s\."):
        return _split(state)
    depth = resnet_depth(state, r"backbone\.layer{}\.(\d+)\.")
    if has(state, r"backbone\.layer1\.0\.conv2\.[01]\."):
        return _csn(state, depth)
    options: dict[str, Value] = {}
    network, model = "SlowOnly", f"slow_r{depth}"
    if state["backbone.conv1.conv.weight"].shape[2] == 5:
        network, model = "I3D", f"i3d_r{depth}"
        options = {"stem_temporal_stride": 2, "stem_pool_temporal_stride": 2}
    if not has(state, r"backbone\.layer\d\.\d+\.non_local_block\."):
        candidates: tuple[Candidate, ...] = (Candidate(model=model, options=options),)
        return by_rules(state, _ONE_PATH, _BLOCK, network=network, candidates=candidates)
    candidates = tuple(
        Candidate(model=model, options={**options, "non_local": kind, "non_local_pool": "after"})
        for kind in ("gaussian", "dot_product")
    )
    return _with_non_local(state, _ONE_PATH, _BLOCK, network=f"{network} with non-local blocks", candidates=candidates)


def _split(state: State) -> Reading:
    """Return the reading of R(2+1)D."""
    candidates = (Candidate(model="r2plus1d_34", options={"stem_pool": True}),)
    outer = {name: tensor for name, tensor in state.items() if ".bn." in name}
    folded = {**state, **with_epsilon(outer, _EPSILON)}
    return by_rules(folded, _SPLIT, network="R(2+1)D", candidates=candidates, notes=(_folded("R(2+1)D"),))


def _with_non_local(state: State, *steps: Rules, network: str, candidates: tuple[Candidate, ...]) -> Reading:
    """Return the reading of a network with non-local blocks; no tensor shows how they weigh positions."""
    if not has(state, r".*\.non_local_block\.theta\."):
        return refused(network, f"its non-local blocks have no first convolution, and ours have one; {_NAME} runs it")
    # Before a norm, its convolution has no bias; ours has one, of which zero is the same.
    added = {
        name.replace(".bn.bias", ".conv.bias"): tensor.new_zeros(tensor.shape)
        for name, tensor in state.items()
        if name.endswith(".non_local_block.conv_out.bn.bias")
    }
    note = (
        "its name, not its tensors, says whether the non-local blocks have a softmax (embedded-gaussian) or products "
        "(dot-product)"
    )
    reading = by_rules({**added, **state}, _NON_LOCAL, *steps, network=network, candidates=candidates, notes=(note,))
    return reading


def _csn(state: State, depth: int) -> Reading:
    preserved = has(state, r"backbone\.layer1\.0\.conv2\.1\.")
    model = f"csn_r{depth}_ip" if preserved else f"csn_r{depth}"
    candidates = (Candidate(model=model),)
    middle = _PRESERVED if preserved else []
    if model in list_models() and dict(model_info(model).fixed).get("norm_eps") == _EPSILON:
        return by_rules(state, _ONE_PATH, middle, _BLOCK, network="CSN", candidates=candidates)
    folded = with_epsilon(state, _EPSILON)
    return by_rules(folded, _ONE_PATH, middle, _BLOCK, network="CSN", candidates=candidates, notes=(_folded("CSN"),))


def _folded(network: str) -> str:
    """Return the note on a network whose norms have another epsilon than the model's."""
    added = f"MMAction2's {network} adds 0.001 to variances and the model 0.00001"
    return f"{added}: the difference is in the running variances"


def _c3d(state: State) -> Reading:
    return by_rules(state, _C3D, network="C3D", candidates=(Candidate(model="c3d"),))


def _x3d(state: State) -> Reading:
    models = ("x3d_l",) if count(state, r"backbone\.layer3\.(\d+)\.") > 11 else ("x3d_xs", "x3d_s", "x3d_m")
    return by_rules(state, _X3D, network="X3D", candidates=tuple(Candidate(model=model) for model in models))


def _swin(state: State) -> Reading:
    models = ("swin3d_t", "swin3d_s", "swin3d_b")
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(COMPUTED)}
    return by_rules(kept, _SWIN, network="Video Swin", candidates=tuple(Candidate(model=model) for model in models))


def read_mvit(state: State) -> Reading:
    """Return the reading of MViT v2, also as MaskFeat fine-tunes it."""
    flat = {name: tensor.reshape(-1) if name == "backbone.cls_token" else tensor for name, tensor in state.items()}
    model = "mvit_v2_b" if count(state, r"backbone\.blocks\.(\d+)\.") > 16 else "mvit_v2_s"
    return by_rules(flat, _MVIT, network="MViT v2", candidates=(Candidate(model=model),))


_NETWORKS: tuple[tuple[str, Callable[[State], Reading]], ...] = (
    (r"backbone\.slow_path\.conv1\.conv\.", _slowfast),
    (r"backbone\.conv1_s\.conv\.", _x3d),
    (r"backbone\.layers\.0\.blocks\.0\.attn\.relative_position_bias_table", _swin),
    (r"backbone\.blocks\.0\.attn\.rel_pos_h", read_mvit),
    (r"backbone\.conv1\.conv\.", _resnet),
    (r"backbone\.conv1a\.conv\.", _c3d),
)

LAYOUTS = (Layout(name=_NAME, read=_read),)
