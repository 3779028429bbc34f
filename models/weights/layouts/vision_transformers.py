"""Names of VideoMAE and TimeSformer: those of the authors, and those of Hugging Face's library; its names of ViViT."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from ..layout import Candidate, Layout, Reading, Rules, State, by_rules, has, renamed

_SIZES = {384: "s", 768: "b", 1024: "l"}
_BLOCK: Rules = [
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
]
_VIDEOMAE: Rules = [
    (r"^videomae\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    # Earlier versions of the library kept the biases of queries and values beside the layers.
    (r"\.attention\.attention\.(query\.|q_)bias$", ".attn.q_bias"),
    (r"\.attention\.attention\.(value\.|v_)bias$", ".attn.v_bias"),
    *_BLOCK,
    (r"^classifier\.", "head."),
]
_TIMESFORMER: Rules = [
    (r"^timesformer\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.time_embeddings$", "time_embed"),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.temporal_layernorm\.", ".temporal_norm1."),
    (r"\.temporal_dense\.", ".temporal_fc."),
    (r"\.temporal_attention\.attention\.qkv\.", ".temporal_attn.qkv."),
    (r"\.temporal_attention\.output\.dense\.", ".temporal_attn.proj."),
    (r"\.attention\.attention\.qkv\.", ".attn.qkv."),
    *_BLOCK,
    (r"^classifier\.", "head."),
]
# From the names of version 4 of the library to those of version 5, which its networks have.
_VIVIT: Rules = [
    (r"^vivit\.", "net.vivit."),
    (r"\.encoder\.layer\.", ".layers."),
    (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attention.\1_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^classifier\.", "head."),
]
# What a pre-training has not: the norm of the mean over positions, and the classifier.
_HEAD = ("fc_norm.", "head.")
_PRETRAINED = "the file is a pre-training: its decoder is left out, and the last norm and the classifier are new"


def _videomae_candidates(state: State) -> tuple[Candidate, ...]:
    kernel = state["patch_embed.proj.weight"]
    size = _SIZES.get(kernel.shape[0])
    return (Candidate(model=f"videomae_vit_{size}"),) if size and kernel.shape[2:] == (2, 16, 16) else ()


def _videomae_reading(ours: dict[str, Tensor], names: dict[str, str], state: State) -> Reading:
    """Return the reading of a file of either form; what is not in `names` and in no joined tensor is left out."""
    pretrained = not any(name.startswith("head.") for name in ours)
    joined = {theirs for theirs in state if re.search(r"\.attention\.attention\.(key|value)\.weight$", theirs)}
    return Reading(
        network="VideoMAE",
        state=ours,
        names=names,
        candidates=_videomae_candidates(ours),
        notes=(_PRETRAINED,) if pretrained else (),
        absent=_HEAD if pretrained else (),
        joined=tuple(sorted(joined)),
        left_out=tuple(sorted(state.keys() - set(names.values()) - joined)),
    )


def _videomae(state: State) -> Reading | None:
    """Read the authors' files: fine-tuned with our names, pre-trained with an encoder and a decoder."""
    prefix = "encoder." if has(state, r"encoder\.blocks\.0\.attn\.q_bias$") else ""
    kernel = state.get(f"{prefix}patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 5 or f"{prefix}blocks.0.attn.q_bias" not in state:
        return None
    names = {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}
    if prefix:
        # The norm of all positions, which the mean over positions replaces.
        names = {ours: theirs for ours, theirs in names.items() if not ours.startswith("norm.")}
    return _videomae_reading({ours: state[theirs] for ours, theirs in names.items()}, names, state)


def _hugging_face_videomae(state: State) -> Reading | None:
    prefix = "videomae." if has(state, r"videomae\.") else ""
    if not has(state, re.escape(prefix) + r"encoder\.layer\.0\.attention\.attention\.query\.weight$"):
        return None
    ours: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for name, tensor in state.items():
        query = re.fullmatch(r"(.*encoder\.layer\.(\d+)\.attention\.attention\.)query\.weight", name)
        if query is not None:
            parts = [state[f"{query[1]}{part}.weight"] for part in ("query", "key", "value")]
            key, value = f"blocks.{query[2]}.attn.qkv.weight", torch.cat(parts)
        elif re.search(r"\.attention\.attention\.(key|value)\.weight$", name):
            continue
        else:
            key, value = renamed(name, _VIDEOMAE), tensor
        if key.startswith(("blocks.", "patch_embed.", *_HEAD)):
            ours[key], names[key] = value, name
    return _videomae_reading(ours, names, state)


def _timesformer_candidates(state: State) -> tuple[Candidate, ...]:
    """Return TimeSformer with the tables of the file, which has one position more than patches."""
    side = math.isqrt(state["pos_embed"].shape[1] - 1)
    options = {"table_frames": state["time_embed"].shape[1], "table_size": 16 * side}
    return (Candidate(model="timesformer_b", options=options),)


def _timesformer(state: State) -> Reading | None:
    if not {"pos_embed", "time_embed", "blocks.0.temporal_fc.weight"} <= state.keys():
        return None
    return by_rules(state, network="TimeSformer", candidates=_timesformer_candidates(state))


def _hugging_face_timesformer(state: State) -> Reading | None:
    if not has(state, r"timesformer\.embeddings\.time_embeddings$"):
        return None
    reading = by_rules(state, _TIMESFORMER, network="TimeSformer")
    return by_rules(state, _TIMESFORMER, network="TimeSformer", candidates=_timesformer_candidates(reading.state))


def _hugging_face_vivit(state: State) -> Reading | None:
    if not has(state, r"vivit\.embeddings\."):
        return None
    return by_rules(state, _VIVIT, network="ViViT")


LAYOUTS = (
    Layout(name="VideoMAE", read=_videomae),
    Layout(name="Hugging Face's VideoMAE", read=_hugging_face_videomae),
    Layout(name="TimeSformer", read=_timesformer),
    Layout(name="Hugging Face's TimeSformer", read=_hugging_face_timesformer),
    Layout(name="Hugging Face's ViViT", read=_hugging_face_vivit),
)
