"""Card of TimeSformer."""

from __future__ import annotations

from ..card import Clip, Divides, HParam, Integer, ModelInfo
from .transformers import ATTENTION_DROPOUT, SEARCH, SEARCH_BASE, stochastic_depth
from .video_vit import HEAD_WIDTH, vit_width

CARDS = (
    ModelInfo(
        name="timesformer_b",
        family="TimeSformer",
        paper="Bertasius et al., Is Space-Time Attention All You Need for Video Understanding?, ICML 2021",
        clip=Clip(frames=8, stride=32, size=224, mean=(0.45,) * 3, std=(0.225,) * 3),
        builder="models.architectures.timesformer:TimeSformer",
        hparams=(
            vit_width(768),
            HEAD_WIDTH,
            HParam(
                name="table_frames",
                default=8,
                accepts=Integer(low=1, high=256),
                doc="Frames of the clips that positions are learned for; other clips take the nearest position.",
            ),
            HParam(
                name="table_size",
                default=224,
                accepts=Integer(low=16, high=1024),
                doc="Pixels a side of the clips that positions are learned for; others take the nearest position.",
            ),
            stochastic_depth(0.1),
            ATTENTION_DROPOUT,
        ),
        fixed=(("depth", 12),),
        rules=(Divides(divisor="head_width", of="width"),),
        dropout=0.0,
        min_size=16,
        parameters=121_566_352,
        gflops=195.83,
        search=SEARCH,
        search_base=SEARCH_BASE,
    ),
)
