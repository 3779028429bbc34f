"""Hiera's pre-trainings. Its fine-tuned files have our names."""

from __future__ import annotations

from ..layout import Candidate, Layout, Reading, State, count, has

_MODELS = {24: "hiera_b", 48: "hiera_l"}
# The authors' fine-tuning starts with a new norm and a new classifier, too.
_HEAD = ("norm.", "head.")
_PRETRAINED = "the file is a pre-training: its decoder is left out, and the last norm and the classifier are new"


def _pretraining(state: State) -> Reading | None:
    if "decoder_pos_embed" not in state or "pos_embed_temporal" not in state:
        return None
    kept = {name: tensor for name, tensor in state.items() if has({name: tensor}, r"(patch_embed|pos_embed_|blocks)")}
    model = _MODELS.get(count(kept, r"blocks\.(\d+)\."))
    return Reading(
        network="Hiera",
        state=kept,
        names={name: name for name in kept},
        candidates=(Candidate(model=model),) if model else (),
        notes=(_PRETRAINED,),
        absent=_HEAD,
        left_out=tuple(sorted(state.keys() - kept.keys())),
    )


LAYOUTS = (Layout(name="Hiera's pre-training", read=_pretraining),)
