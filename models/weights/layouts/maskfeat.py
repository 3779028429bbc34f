"""MaskFeat's pre-training of MViT in MMSelfSup, whose network has MMAction2's names."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from ..layout import Layout, Reading, State, count, has, refused
from .mmaction import read_mvit

# MMAction2's fine-tuning starts with a new norm and a new classifier, too.
_HEAD = ("norm.", "head.")
_DEPTH = 16
_NOTE = (
    "the file is a pre-training: what predicts the masked features is left out, the last norm and the classifier are "
    "new, and the positions of the last layer are interpolated, as the network then halves its images once more"
)


def _read(state: State) -> Reading | None:
    if not has(state, r"backbone\.mask_token$") or not has(state, r"backbone\.blocks\.0\.attn\.rel_pos_h$"):
        return None
    if count(state, r"backbone\.blocks\.(\d+)\.") != _DEPTH:
        return refused("MaskFeat", "it is MaskFeat's pre-training of MViT-L, which no model here is; MMSelfSup runs it")
    kept = {name: tensor for name, tensor in state.items() if has({name: tensor}, r"backbone\.(patch|cls|blocks\.)")}
    for axis in "hw":
        name = f"backbone.blocks.{_DEPTH - 1}.attn.rel_pos_{axis}"
        kept[name] = _halved(kept[name])
    reading = read_mvit(kept)
    left_out = tuple(sorted(state.keys() - kept.keys()))
    return replace(reading, network="MaskFeat", notes=(_NOTE,), absent=_HEAD, left_out=left_out)


def _halved(table: Tensor) -> Tensor:
    """Return entries (2 * places - 1, C) for half as many places."""
    smaller = F.interpolate(table.T.unsqueeze(0).float(), (len(table) - 1) // 2, mode="linear", align_corners=False)
    return smaller[0].T.contiguous()


LAYOUTS = (Layout(name="MMSelfSup", read=_read),)
