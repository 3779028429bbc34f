"""Names of MViT, both versions, in PySlowFast and in PyTorchVideo."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ..layout import Candidate, Layout, Reading, Rules, State, count, renamed

# Of PyTorchVideo, in PySlowFast's names.
_PYTORCHVIDEO: Rules = [
    (r"^patch_embed\.patch_model\.", "patch_embed.proj."),
    (r"^cls_positional_encoding\.", ""),
    (r"^norm_embed\.", "norm."),
    (r"^head\.proj\.", "head.projection."),
]
_EPSILON = (
    "in its attention PyTorchVideo's MViT adds 0.00001 to variances and the model 0.000001: results differ slightly",
)
_NAMES: Rules = [
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^cls_token$", "pos_encoding.class_token"),
    (r"^pos_embed_(spatial|temporal|class)$", r"pos_encoding.\1_pos"),
    (r"\.attn\.proj\.", ".attn.project.0."),
    (r"\.attn\.pool_([qkv])\.", r".attn.pool_\1.pool."),
    (r"\.attn\.norm_([qkv])\.", r".attn.pool_\1.norm_act.0."),
    (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^head\.projection\.", "head.1."),
]
# Files of configurations with SEPARATE_QKV, and all of PyTorchVideo, have these three as layers of their own.
_PART = re.compile(r"(.*\.attn\.)([qkv])\.(weight|bias)$")


def _pyslowfast(state: State) -> Reading | None:
    is_of_clips = "patch_embed.proj.weight" in state and state["patch_embed.proj.weight"].ndim == 5
    return _reading(state, []) if is_of_clips and "blocks.0.attn.pool_k.weight" in state else None


def _pytorchvideo(state: State) -> Reading | None:
    return _reading(state, _PYTORCHVIDEO, _EPSILON) if "cls_positional_encoding.cls_token" in state else None


def _reading(state: State, program: Rules, notes: tuple[str, ...] = ()) -> Reading:
    joined = [name for name in state if (part := _PART.match(name)) and part[2] != "q"]
    names: dict[str, str] = {}
    ours: dict[str, Tensor] = {}
    for theirs in (name for name in state if name not in joined):
        part = _PART.match(theirs)
        name = renamed(f"{part[1]}qkv.{part[3]}" if part else theirs, program, _NAMES)
        names[name] = theirs
        ours[name] = torch.cat([state[f"{part[1]}{each}.{part[3]}"] for each in "qkv"]) if part else state[theirs]
        if name.startswith("pos_encoding."):
            ours[name] = _without_batch(ours[name])
    model = _model(ours)
    return Reading(
        network="MViT v2" if "blocks.0.attn.rel_pos_h" in ours else "MViT",
        state=ours,
        names=names,
        candidates=(Candidate(model=model),) if model else (),
        notes=notes,
        joined=tuple(joined),
    )


def _model(ours: State) -> str | None:
    """Return the model of this version and depth; two of version 1 differ in their number of frames alone."""
    depth = count(ours, r"blocks\.(\d+)\.")
    if "blocks.0.attn.rel_pos_h" in ours:
        return {16: "mvit_v2_s", 24: "mvit_v2_b"}.get(depth)
    if depth != 16:
        return None
    return "mvit_v1_b_32x3" if ours["pos_encoding.temporal_pos"].shape[0] > 8 else "mvit_v1_b"


def _without_batch(table: Tensor) -> Tensor:
    """Return positions (1, P, C) as (P, C), and a token (1, 1, C) as (C,)."""
    return table.reshape(table.shape[1:] if table.shape[1] > 1 else table.shape[2:])


LAYOUTS = (Layout(name="PySlowFast's MViT", read=_pyslowfast), Layout(name="PyTorchVideo's MViT", read=_pytorchvideo))
