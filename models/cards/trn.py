"""Cards of the multi-scale temporal relation networks."""

from __future__ import annotations

from ..card import HParam, Integer, ModelInfo, SearchChoice
from .resnet2d import NON_LOCAL, PARTIAL_NORM, SEGMENT_COUNT, WIDTH, ZERO_INIT, clip

_RELATIONS = HParam(
    name="relations",
    default=3,
    accepts=Integer(low=0, high=100),
    doc="Tuples of images that training draws for each scale; 0 takes all.",
)


def _card(depth: int, *, parameters: int, gflops: float) -> ModelInfo:
    return ModelInfo(
        name=f"trn_resnet{depth}",
        family="TRN",
        paper="Zhou et al., Temporal Relational Reasoning in Videos, ECCV 2018",
        clip=clip(8),
        builder="models.architectures.trn:TRN",
        hparams=(WIDTH, ZERO_INIT, SEGMENT_COUNT, _RELATIONS, NON_LOCAL, PARTIAL_NORM),
        fixed=(("depth", depth),),
        dropout=0.8,
        # Stem and stages halve the image five times.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=(SearchChoice(name="model.relations", values=(1, 3, 6)),),
    )


CARDS = (
    _card(18, parameters=14_320_592, gflops=14.577),
    _card(50, parameters=27_045_328, gflops=32.769),
)
