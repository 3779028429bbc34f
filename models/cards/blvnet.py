"""Cards of bLVNet-TAM."""

from __future__ import annotations

from ..card import Choice, Divides, HParam, Integer, ModelInfo, SearchChoice
from .resnet2d import BLEND, CONSENSUS, clip

_PAPER = (
    "Fan et al., More Is Less: Learning Efficient Video Representations by Big-Little Network and Depthwise "
    "Temporal Aggregation, NeurIPS 2019"
)
_HPARAMS = (
    HParam(
        name="width",
        default=64,
        accepts=Integer(low=4, high=256),
        doc="Channels of the stem, a multiple of alpha; every other width follows from it.",
    ),
    HParam(
        name="alpha",
        default=2,
        accepts=Choice(values=(1, 2, 4)),
        doc="The little branch has 1 / alpha of the big branch's channels; divides width.",
    ),
    HParam(
        name="beta",
        default=4,
        accepts=Choice(values=(1, 2, 4)),
        doc="The little branch has about 1 / beta of the big branch's blocks.",
    ),
    HParam(
        name="group",
        default=2,
        accepts=Choice(values=(2,)),
        doc="Frames per output: one for the big branch, one for the little; divides the clip.",
    ),
    BLEND[0],
    BLEND[3],
    HParam(
        name="zero_init",
        default=True,
        accepts=Choice(values=(False, True)),
        doc="Start every residual branch at zero (the scale of its last batch norm).",
    ),
    CONSENSUS,
)


def _card(depth: int, *, parameters: int, gflops: float) -> ModelInfo:
    return ModelInfo(
        name=f"blvnet_tam_{depth}",
        family="bLVNet-TAM",
        paper=_PAPER,
        # "f8x2": eight pairs.
        clip=clip(16, stride=4),
        builder="models.architectures.blvnet:BLVNetTAM",
        hparams=_HPARAMS,
        fixed=(("depth", depth),),
        rules=(Divides(divisor="alpha", of="width"), Divides(divisor="group", of="frames")),
        dropout=0.5,
        min_frames=2,
        # Stem and stages halve the image five times.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=(
            SearchChoice(name="clip.frames", values=(8, 16, 32)),
            SearchChoice(name="model.alpha", values=(2, 4)),
            SearchChoice(name="model.blend_frames", values=(3, 5)),
        ),
    )


CARDS = (
    _card(50, parameters=25_483_216, gflops=23.783),
    _card(101, parameters=40_640_208, gflops=32.081),
)
