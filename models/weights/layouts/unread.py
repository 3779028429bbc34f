"""Files of known programs whose networks no model here is: each is named, with the program that reads it."""

from __future__ import annotations

from ..layout import Layout, Reading, State, has, refused

# Of each program: a name in its files, as a regular expression from its start, the network, and who reads it.
_PROGRAMS: tuple[tuple[str, str, str], ...] = (
    (r"(backbone|neck)\..*(bbox_head|roi_head)|(bbox_head|roi_head|rpn_head)\.", "a detector", "MMDetection"),
    (r"backbone\.bottom_up\.", "a detector", "Detectron2"),
    (r"neck\.", "a network with a neck, such as TPN", "MMAction2"),
    (r"(bert|roberta|distilbert)\.", "a language model", "Hugging Face's transformers"),
    (r"(text_model|vision_model)\.", "CLIP", "Hugging Face's transformers"),
    (r"(visual\.transformer|transformer)\.resblocks\.0\.", "CLIP", "OpenCLIP"),
    (r"(patch_embed1|blocks1\.0)\.", "UniFormer", "Sense-X/UniFormer"),
    (r"blocks\.b0_l0\.", "MoViNet", "Atze00/MoViNet-pytorch"),
    (r"(inception_3a_1x1|conv1_7x7_s2)\.", "BN-Inception", "timm or tsn-pytorch"),
    (r"down_blocks\.0\.", "a diffusion model", "Hugging Face's diffusers"),
    (r"model\.0\.conv\.weight$", "YOLO", "Ultralytics"),
)


def _read(state: State) -> Reading | None:
    for pattern, network, program in _PROGRAMS:
        if has(state, pattern):
            return refused(network, f"this looks like {network}, which is not read; {program} reads it")
    return None


def _mmaction(state: State) -> Reading | None:
    if not has(state, r"cls_head\."):
        return None
    return refused("a recogniser", "this looks like a network of MMAction2 that no model here is; MMAction2 reads it")


LAYOUTS = (
    Layout(name="another program", read=_read, order=8),
    Layout(name="MMAction2", read=_mmaction, order=9),
)
