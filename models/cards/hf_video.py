"""Card of the video classifiers of Hugging Face's `transformers`."""

from __future__ import annotations

from ..card import Choice, Clip, Divides, HParam, Integer, ModelInfo, SearchChoice
from .transformers import SEARCH, SEARCH_BASE
from .video_vit import HEAD_WIDTH, vit_width

CARDS = (
    ModelInfo(
        name="hf_video",
        family="Hugging Face",
        paper="Wolf et al., Transformers: State-of-the-Art Natural Language Processing, EMNLP 2020",
        clip=Clip(frames=32, stride=2, size=224, mean=(0.5,) * 3, std=(0.5,) * 3),
        builder="models.architectures.hf_video:HFVideo",
        hparams=(
            HParam(
                name="architecture",
                default="vivit",
                accepts=Choice(values=("vivit", "vjepa2")),
                doc="The network, by the model_type of its configuration in transformers.",
            ),
            vit_width(768),
            HEAD_WIDTH,
            HParam(name="depth", default=12, accepts=Integer(low=1, high=48), doc="Blocks of the network."),
            HParam(
                name="frames",
                default=32,
                accepts=Integer(low=2, high=128),
                doc="Frames of the clips, which must be those of clip.frames.",
            ),
            HParam(
                name="size",
                default=224,
                accepts=Integer(low=16, high=1024),
                doc="Pixels a side of the clips, which must be those of clip.size.",
            ),
        ),
        rules=(Divides(divisor="head_width", of="width"),),
        clip_options=("frames", "size"),
        dropout=0.0,
        min_frames=2,
        min_size=16,
        # Those of training; of the library's networks, only the sizes of clips, which have to be those of the study.
        search=(
            *SEARCH[:3],
            SearchChoice(name="model.frames", values=(8, 16, 32)),
            SearchChoice(name="model.size", values=(112, 224)),
        ),
        search_base=SEARCH_BASE,
    ),
)
