"""The options of a model that the names and shapes of its tensors show."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from torch import Tensor

from ..card import ModelInfo, Value
from .layout import State

Shown = dict[str, Value]


def shown_options(info: ModelInfo, state: State) -> Shown:
    """Return the options of the model `info`, as far as tensors under our names show them; only those it has."""
    module = info.builder.partition(":")[0].rpartition(".")[2]
    read = _BY_ARCHITECTURE.get(module)
    known = info.defaults()
    try:
        found = read(state) if read else {}
    except (IndexError, KeyError, StopIteration, ZeroDivisionError):
        # Tensors of another network: the comparison with the model will say so.
        return {}
    return {name: value for name, value in found.items() if name in known}


def _slowfast(state: State) -> Shown:
    lateral = state["laterals.0.conv.weight"].shape
    width = state["slow.stem.conv.weight"].shape[0]
    return {
        "width": width,
        "beta_inv": width // state["fast.stem.conv.weight"].shape[0],
        "fusion_kernel": lateral[2],
        "fusion_ratio": lateral[0] // lateral[1],
        "lateral_norm": "laterals.0.norm.weight" in state,
        "head_bias": "head.bias" in state,
    }


def _width(name: str) -> Callable[[State], Shown]:
    return lambda state: {"width": state[name].shape[0]}


def _x3d(state: State) -> Shown:
    return {
        "width": state["stem.conv_space.weight"].shape[0],
        "head_width": state["project.conv.weight"].shape[0],
        "shortcut_norm": "stages.0.0.shortcut.norm.weight" in state,
        "project_norm": "project.norm.weight" in state,
    }


def _resnet2d(state: State) -> Shown:
    shown: Shown = {"width": state["conv1.weight"].shape[0], "non_local": any(".theta." in name for name in state)}
    kernels = state.get("layer1.0.tam.G.0.weight")
    if kernels is not None:
        shown["segments"] = kernels.shape[1]
    return shown | _blending(state)


def _trn(state: State) -> Shown:
    scales = {match[1] for name in state if (match := re.match(r"relations\.(\d+)\.", name))}
    return _resnet2d(state) | {"segments": len(scales) + 1}


def _c3d(state: State) -> Shown:
    return {"width": state["conv1a.weight"].shape[0], "hidden_width": state["fc7.weight"].shape[0]}


def _mvit(state: State) -> Shown:
    shown: Shown = {"width": state["conv_proj.weight"].shape[0]}
    places = state.get("pos_encoding.spatial_pos")
    if places is not None:
        shown["table_size"] = 4 * math.isqrt(places.shape[0])
        shown["table_frames"] = 2 * state["pos_encoding.temporal_pos"].shape[0]
    if "blocks.0.attn.rel_pos_h" in state:
        shown["widen"] = "mlp" if "blocks.0.project.weight" in state else "attention"
        # One entry for each distance, forwards and backwards, between patches of 4 pixels and of 2 frames.
        shown["table_size"] = 2 * (state["blocks.0.attn.rel_pos_h"].shape[0] + 1)
        shown["table_frames"] = state["blocks.0.attn.rel_pos_t"].shape[0] + 1
    return shown


def _hiera(state: State) -> Shown:
    shown: Shown = {"width": state["patch_embed.proj.weight"].shape[0]}
    shown["table_size"] = 4 * math.isqrt(state["pos_embed_spatial"].shape[1])
    shown["table_frames"] = 2 * state["pos_embed_temporal"].shape[1]
    return shown


def _blending(state: State) -> Shown:
    """Return the options of temporal aggregation."""
    layers = [
        tensor for name, tensor in state.items() if re.search(r"tam\.(curr_se|blending_layers\.\d+)\.fc1\.", name)
    ]
    if not layers:
        return {}
    frames = {match[1] for name in state if (match := re.search(r"tam\.blending_layers\.(\d+)\.", name))}
    return {"blend_frames": len(frames) or 3, "blend_depthwise": all(layer.shape[1] == 1 for layer in layers)}


def _blvnet(state: State) -> Shown:
    width = state["conv1.weight"].shape[0]
    return {"width": width, "alpha": width // state["l_conv0.weight"].shape[0]} | _blending(state)


def _s3d(state: State) -> Shown:
    stem = state["features.0.0.0.weight" if "features.0.0.0.weight" in state else "features.0.0.weight"]
    return {"width": stem.shape[0], "dw_t_conv": _depthwise(state, "features.3.1.0.weight")}


def _s3d_resnet(state: State) -> Shown:
    return {"width": state["conv1.weight"].shape[0], "dw_t_conv": _depthwise(state, "layer1.0.conv1_t.weight")}


def _depthwise(state: Mapping[str, Tensor], name: str) -> bool:
    return name in state and state[name].shape[1] == 1


def _r3d(state: State) -> Shown:
    split = "stem.3.weight" in state
    mid = state["stem.0.weight"].shape[0]
    stem = state["stem.3.weight" if split else "stem.0.weight"]
    shown: Shown = {"width": stem.shape[0]}
    if split or stem.shape[2] > 3:
        # With three frames a full kernel is that of torchvision's networks.
        shown["stem_frames"] = stem.shape[2]
    if split:
        shown["study_layout"] = "stem.0.bias" in state
        if not shown["study_layout"]:
            shown["stem_midplanes"] = "torchvision" if mid == max(45 * stem.shape[0] // 64, 1) else "paper"
            shown["shortcut"] = "split" if "layer2.0.downsample.3.weight" in state else "projection"
        # Of basic blocks, both convolutions of the first block of a stage; of bottlenecks, those of two blocks.
        basic = "layer2.0.conv1.0.0.weight" in state
        first = state["layer2.0.conv1.0.0.weight" if basic else "layer2.1.conv2.0.0.weight"].shape[0]
        second = state["layer2.0.conv2.0.0.weight"].shape[0]
        shown["midplanes"] = "torchvision" if (first == second) == basic else "paper"
    return shown


def _stmulnet(state: State) -> Shown:
    """Return the options of a multiplier network by both streams, or by the one that there is."""
    stem = next(state[name] for name in ("spatial.conv1.weight", "temporal.conv1.weight") if name in state)
    shown: Shown = {
        "width": stem.shape[0],
        "stem_bias": any(name.endswith("al.conv1.bias") for name in state),
        "temporal_norm": any(".temporal_conv.bn." in name for name in state),
    }
    flow = state.get("temporal.conv1.weight")
    return shown if flow is None else {**shown, "flow_channels": flow.shape[1]}


_BY_ARCHITECTURE: dict[str, Callable[[State], Shown]] = {
    "slowfast": _slowfast,
    "single_path": _width("path.stem.conv.weight"),
    "bottleneck_net": _width("path.stem.conv.weight"),
    "x3d": _x3d,
    "resnet2d": _resnet2d,
    "blvnet": _blvnet,
    "s3d": _s3d,
    "s3d_resnet": _s3d_resnet,
    "r3d": _r3d,
    "stmulnet": _stmulnet,
    "trn": _trn,
    "c3d": _c3d,
    "mvit": _mvit,
    "video_vit": _width("patch_embed.proj.weight"),
    "hiera": _hiera,
    "timesformer": _width("patch_embed.proj.weight"),
    "i3d_inception": _width("Conv3d_1a_7x7.conv3d.weight"),
}
