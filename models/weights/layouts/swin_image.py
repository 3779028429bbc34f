"""Names of image networks of Swin: those of its authors and of timm, translated to torchvision's."""

from __future__ import annotations

import re

from ..layout import Layout, Reading, Rules, State, by_rules, has

_NAMES: Rules = [
    (r"^patch_embed\.proj\.", "features.0.0."),
    (r"^patch_embed\.norm\.", "features.0.2."),
    (r"^layers\.(\d)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + 1}."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^head\.fc\.", "head."),
]


def _merging_after(match: re.Match[str]) -> str:
    return f"features.{2 * int(match[1]) + 2}."


def _merging_before(match: re.Match[str]) -> str:
    return f"features.{2 * int(match[1])}."


def _read(state: State) -> Reading | None:
    kernel = state.get("patch_embed.proj.weight")
    if (
        kernel is None
        or kernel.ndim != 4
        or not has(state, r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table")
    ):
        return None
    # The merging of patches belongs to the stage before it, in timm since 0.9 to the one after it.
    merging = _merging_after if has(state, r"layers\.0\.downsample\.") else _merging_before
    return by_rules(state, [(r"^layers\.(\d)\.downsample\.", merging)], _NAMES, network="Swin of images")


LAYOUTS = (Layout(name="Swin of images", read=_read),)
