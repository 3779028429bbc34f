"""Cards of the vision transformers of VideoMAE, which are also those of VideoMAE V2 in these sizes."""

from __future__ import annotations

from ..card import Clip, Divides, HParam, Integer, ModelInfo
from .transformers import ATTENTION_DROPOUT, SEARCH, SEARCH_BASE, stochastic_depth

_PAPER = (
    "Tong et al., VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training, "
    "NeurIPS 2022"
)
HEAD_WIDTH = HParam(
    name="head_width",
    default=64,
    accepts=Integer(low=4, high=128),
    doc="Channels of an attention head; divides width.",
)


def vit_width(default: int) -> HParam:
    """Return the option of a transformer's width."""
    return HParam(
        name="width",
        default=default,
        accepts=Integer(low=4, high=2048),
        doc="Channels of every position; a multiple of head_width.",
    )


def _card(letter: str, *, depth: int, width: int, parameters: int, gflops: float) -> ModelInfo:
    return ModelInfo(
        name=f"videomae_vit_{letter}",
        family="VideoMAE",
        paper=_PAPER,
        clip=Clip(frames=16, stride=4, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        builder="models.architectures.video_vit:VideoViT",
        hparams=(
            vit_width(width),
            HEAD_WIDTH,
            HParam(
                name="table_frames",
                default=16,
                accepts=Integer(low=2, high=256),
                doc="Frames of the clips that positions are numbered in; for other clips they are interpolated.",
            ),
            HParam(
                name="table_size",
                default=224,
                accepts=Integer(low=16, high=1024),
                doc="Pixels a side of the clips that positions are numbered in; for others they are interpolated.",
            ),
            stochastic_depth(0.1),
            ATTENTION_DROPOUT,
        ),
        fixed=(("depth", depth),),
        rules=(Divides(divisor="head_width", of="width"),),
        dropout=0.0,
        # A tube has two frames of 16 x 16 pixels.
        min_frames=2,
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=SEARCH,
        search_base=SEARCH_BASE,
    )


CARDS = (
    _card("s", depth=12, width=384, parameters=22_033_936, gflops=56.878),
    _card("b", depth=12, width=768, parameters=86_534_800, gflops=180.345),
    _card("l", depth=24, width=1024, parameters=304_270_736, gflops=596.833),
)
